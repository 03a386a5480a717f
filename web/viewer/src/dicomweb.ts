// What the viewer asks the DICOMweb server (PS3.18 chapter 10): series and instances by QIDO-RS, pixels by WADO-RS.

/** One attribute in the DICOM JSON model (PS3.18 annex F). */
export interface Attribute {
  vr: string;
  Value?: unknown[];
  BulkDataURI?: string;
  InlineBinary?: string;
}

export type DicomJson = Record<string, Attribute>;

export interface Series {
  uid: string;
  modality: string;
  number: number | null;
  description: string;
  instanceCount: number;
}

/** One frame that can be shown. */
export interface Slice {
  imageId: string;
  seriesUid: string;
  sopUid: string;
  frame: number; // from 1
  frames: number; // of the whole instance
  metadata: DicomJson; // of the whole instance
}

/** The server answered with something else than success, or not at all (status 0). */
export class ServerRefusal extends Error {
  constructor(
    readonly status: number,
    readonly detail: string,
  ) {
    super(`status ${status}`);
  }
}

/** What an image needs to be shown right, and no more: whole headers would be tens of times as long. */
const NEEDED = [
  '00080008', '00080016', '00080018', '00080060', '0008103E', '00180050', '00200011', '00200013', '00200032', '00200037',
  '00200052', '00201041', '00280002', '00280004', '00280006', '00280008', '00280010', '00280011', '00280030', '00280034',
  '00280100', '00280101', '00280102', '00280103', '00281050', '00281051', '00281052', '00281053', '00281054', '00281055',
  '00281056', '00281101', '00281102', '00281103', '00281201', '00281202', '00281203', '00283000', '00283010', '00283110',
  '00181164', '52009229', '52009230',
];

/** Modalities whose objects carry no image of their own (PS3.3 C.7.3.1.1.1). */
const WITHOUT_IMAGES = new Set([
  'SR', 'KO', 'PR', 'SEG', 'AU', 'ECG', 'HD', 'EPS', 'DOC', 'PLAN', 'REG', 'FID', 'RTSTRUCT', 'RTPLAN', 'RTRECORD', 'RWV',
  'RESP', 'SMR', 'TEXTUREMAP', 'ASMT', 'ANN', 'M3D', 'POS', 'EEG', 'EMG', 'EOG',
]);

/** The series of a study that hold images, by series number. Throws ServerRefusal. */
export async function seriesOf(root: string, studyUid: string): Promise<Series[]> {
  const found = await query(`${root}/studies/${studyUid}/series?includefield=00201209`);
  return found
    .map((json) => ({
      uid: text(json, '0020000E'),
      modality: text(json, '00080060'),
      number: number(json, '00200011'),
      description: text(json, '0008103E'),
      instanceCount: number(json, '00201209') ?? 0,
    }))
    .filter((series) => !WITHOUT_IMAGES.has(series.modality))
    .sort((a, b) => (a.number ?? Infinity) - (b.number ?? Infinity) || (a.uid < b.uid ? -1 : 1));
}

/** Every frame of a series in reading order: by instance number, then by frame. Throws ServerRefusal. */
export async function slicesOf(root: string, studyUid: string, seriesUid: string): Promise<Slice[]> {
  const base = `${root}/studies/${studyUid}/series/${seriesUid}/instances`;
  const instances = await query(`${base}?includefield=${NEEDED.join(',')}`);
  return instances
    .filter((json) => (number(json, '00280010') ?? 0) > 0)
    .map((json) => ({ json, order: number(json, '00200013') ?? Infinity, sopUid: text(json, '00080018') }))
    .sort((a, b) => a.order - b.order || (a.sopUid < b.sopUid ? -1 : 1))
    .flatMap(({ json, sopUid }) => {
      const frames = Math.max(1, number(json, '00280008') ?? 1);
      return Array.from({ length: frames }, (_, index) => ({
        imageId: `wadors:${new URL(base, location.href).href}/${sopUid}/frames/${index + 1}`,
        seriesUid,
        sopUid,
        frame: index + 1,
        frames,
        metadata: palette(json),
      }));
    });
}

/** The address of a small picture of the series. */
export function thumbnail(root: string, studyUid: string, seriesUid: string): string {
  return `${root}/studies/${studyUid}/series/${seriesUid}/thumbnail`;
}

/** What to tell the person who looks. */
export function inWords(error: unknown): string {
  if (!(error instanceof ServerRefusal)) return 'The image arrived, but could not be drawn.';
  switch (error.status) {
    case 0:
      return 'The server cannot be reached. Check the connection, then try again.';
    case 401:
    case 403:
      return 'You are not allowed to see this image, or your session has ended. Log in again.';
    case 404:
      return error.detail || 'The server does not have this image.';
    case 406:
      return `It is stored in a form that the server cannot decode. ${error.detail}`;
    default:
      return error.detail || `The server could not deliver this image (status ${error.status}).`;
  }
}

/** `json` with the palettes that came as bytes spelt out as numbers, which is how the loader wants them. */
function palette(json: DicomJson): DicomJson {
  const spelt: DicomJson = { ...json };
  for (const colour of [1, 2, 3]) {
    const entries = numbers(json, `0028110${colour}`)[0] || 65536; // 0 stands for 65536, PS3.3 C.7.6.3.1.5
    const encoded = json[`0028120${colour}`]?.InlineBinary;
    if (encoded === undefined) continue;
    const bytes = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
    const values = bytes.length >= 2 * entries ? new Uint16Array(bytes.buffer, 0, entries) : bytes;
    spelt[`0028120${colour}`] = { vr: 'US', Value: [...values] };
  }
  return spelt;
}

/** The sentence in an error reply's JSON body `{"message": …}`, or "". */
export function messageIn(body: string): string {
  try {
    const json: unknown = JSON.parse(body);
    if (typeof json === 'object' && json !== null && 'message' in json && typeof json.message === 'string') return json.message;
  } catch {
    // A body that is not JSON has nothing to say to a person.
  }
  return '';
}

/** First value of an attribute as text, "" where there is none. */
export function text(json: DicomJson, tag: string): string {
  const value = json[tag]?.Value?.[0];
  return typeof value === 'string' ? value : typeof value === 'number' ? String(value) : '';
}

/** Every value of an attribute as a number. */
export function numbers(json: DicomJson, tag: string): number[] {
  return (json[tag]?.Value ?? []).map(Number).filter(Number.isFinite);
}

/** First value of an attribute as a number, null where there is none. */
export function number(json: DicomJson, tag: string): number | null {
  return numbers(json, tag)[0] ?? null;
}

async function query(address: string): Promise<DicomJson[]> {
  let response: Response;
  try {
    response = await fetch(address, { headers: { Accept: 'application/dicom+json' }, credentials: 'same-origin' });
  } catch {
    throw new ServerRefusal(0, '');
  }
  if (!response.ok) throw new ServerRefusal(response.status, messageIn(await response.text()));
  return response.status === 204 ? [] : ((await response.json()) as DicomJson[]);
}
