// Fills a correction's region: from what is marked in the viewer, or typed for the image that is shown. The viewer draws
// what the form says, so that a person sees what will be signed.
const viewer = document.getElementById("viewer");
const SIDES = ["left", "top", "width", "height"];
const NUMBER = /^\d+(\.\d+)?$/;
let shown = null; // the image in the viewer: { series_uid, sop_uid, frame, index }
let asking = null; // the fieldset whose button was pressed

function field(region, name) {
  return region.querySelector(`[name="${name}"]`);
}

function say(region, words) {
  region.querySelector("[data-region-image]").textContent = words;
}

function name(region, image) {
  field(region, "sop_uid").value = image.sop_uid;
  field(region, "frame").value = image.frame ?? "";
  say(region, `Marked on slice ${image.index + 1} of the series that is shown.`);
}

/** Have the viewer draw what the form says, once it says a whole rectangle. */
function propose(region) {
  const values = SIDES.map((side) => field(region, side).value.trim());
  const [left, top, width, height] = values.map(Number);
  const sop_uid = field(region, "sop_uid").value;
  const whole = sop_uid !== "" && values.every((value) => NUMBER.test(value));
  const frame = Number(field(region, "frame").value) || null;
  const detail = whole ? { image: { series_uid: "", sop_uid, frame }, left, top, width, height, words: "Not signed yet" } : null;
  region.querySelector("[data-unmark]").hidden = values.every((value) => value === "");
  viewer?.dispatchEvent(new CustomEvent("wetread:region", { detail }));
}

document.addEventListener("wetread:shown", ({ detail }) => {
  shown = detail;
});

document.addEventListener("click", ({ target }) => {
  const button = target instanceof Element ? target.closest("[data-mark], [data-unmark]") : null;
  if (button === null || viewer === null) return;
  const region = button.closest("[data-region]");
  if (button.hasAttribute("data-unmark")) {
    for (const name of [...SIDES, "sop_uid", "frame"]) field(region, name).value = "";
    say(region, "");
    propose(region);
    region.querySelector("[data-mark]").focus();
    return;
  }
  asking = region;
  say(region, "Drag a rectangle on the image. Escape ends it.");
  viewer.dispatchEvent(new CustomEvent("wetread:mark"));
});

document.addEventListener("wetread:marked", ({ detail }) => {
  if (asking === null) return;
  if (detail.box === null) {
    say(asking, "");
  } else {
    for (const side of SIDES) field(asking, side).value = detail.box[side];
    name(asking, detail);
  }
  propose(asking);
  asking.querySelector("[data-mark]").focus();
  asking = null;
});

// Numbers that are typed mean the image that is shown while they are.
document.addEventListener("input", ({ target }) => {
  const region = target instanceof Element ? target.closest("[data-region]") : null;
  if (region === null) return;
  if (shown !== null && field(region, "sop_uid").value === "") name(region, shown);
  propose(region);
});
