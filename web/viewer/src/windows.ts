// Windows (PS3.3 C.11.2.1.2) that can be chosen, from the image's header and by modality.
import { text, numbers, type DicomJson } from './dicomweb';

export interface Window {
  name: string;
  center: number;
  width: number; // greater than 0
}

/** Usual windows for CT, in Hounsfield units. */
const CT: readonly Window[] = [
  { name: 'Brain', center: 40, width: 80 },
  { name: 'Subdural', center: 75, width: 215 },
  { name: 'Stroke', center: 35, width: 40 },
  { name: 'Soft tissue', center: 50, width: 400 },
  { name: 'Lung', center: -600, width: 1500 },
  { name: 'Bone', center: 500, width: 2000 },
];

/** MR has no absolute scale: variations on the header's own window, as factors of its width. */
const MR_VARIATIONS: readonly { name: string; factor: number }[] = [
  { name: 'More contrast', factor: 0.6 },
  { name: 'Less contrast', factor: 1.6 },
];

/** The windows of the header itself, in its order. */
export function headerWindows(metadata: DicomJson): Window[] {
  const centers = numbers(metadata, '00281050');
  const widths = numbers(metadata, '00281051');
  const names = (metadata['00281055']?.Value ?? []) as unknown[];
  return centers.flatMap((center, index) => {
    const width = widths[index];
    if (width === undefined || width <= 0) return [];
    const name = names[index];
    const label = typeof name === 'string' && name !== '' ? name : centers.length > 1 ? `As acquired ${index + 1}` : 'As acquired';
    return [{ name: label, center, width }];
  });
}

/** Everything to offer for an image; the full range of its values is added where the image is at hand. */
export function windowsFor(metadata: DicomJson, range: { min: number; max: number } | null): Window[] {
  const header = headerWindows(metadata);
  const modality = text(metadata, '00080060');
  const windows = [...header];
  if (modality === 'CT') windows.push(...CT);
  const first = header[0];
  if (modality === 'MR' && first !== undefined) {
    windows.push(...MR_VARIATIONS.map(({ name, factor }) => ({ name, center: first.center, width: first.width * factor })));
  }
  if (range !== null && range.max > range.min) {
    windows.push({ name: 'Full range', center: (range.min + range.max) / 2, width: range.max - range.min });
  }
  return windows;
}
