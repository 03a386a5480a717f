-- Sends every series of images to Wetread once no image of it has arrived for "StableAge" seconds.
--
-- By series, not by study: a result that Wetread stores here makes the study stable again, but is a series of its own,
-- of a modality that is not listed, so nothing is sent round and round.
-- Leave this script out where Wetread follows this Orthanc by itself ([[orthanc]] in wetread.toml).

-- Modalities to send. Wetread answers what no model of it reads with a refusal in words.
local modalities = { MR = true, CT = true, CR = true, DX = true }

function OnStableSeries(seriesId, tags, metadata)
  if modalities[tags['Modality']] then
    -- As a job: one association for the whole series, kept over a restart, to be tried again in Orthanc's explorer.
    local job = { Resources = { seriesId }, Synchronous = false }
    RestApiPost('/modalities/wetread/store', DumpJson(job, true))
  end
end
