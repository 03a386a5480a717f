// A map of where the model looked, made into a picture. The colours are those of the secondary capture: from black through
// violet, red and orange to pale yellow, so that brighter is always more, also to the colour-blind.

/** A map as the server gives it: a few cells that cover the whole frame. */
export interface LaidMap {
  model: string;
  words: string;
  rows: number;
  columns: number;
  levels: string; // base64, a byte a cell, row by row; "" where the model saw nothing
}

const RAMP: readonly (readonly [number, number, number])[] = [
  [0, 0, 4],
  [60, 12, 100],
  [146, 32, 110],
  [214, 62, 66],
  [248, 136, 24],
  [252, 220, 90],
  [254, 250, 200],
];
const LONGEST = 256; // pixels of the longer side; the map itself has at most 64 cells there
const RISE = 1.6; // opacity over evidence, so that weak evidence is faint and none is clear

/** The map as a picture of the frame's shape, or null where there is nothing to draw. */
export function pictureOf(map: LaidMap, columns: number, rows: number): HTMLCanvasElement | null {
  const levels = levelsOf(map);
  if (levels === null) return null;
  const scale = Math.min(1, LONGEST / Math.max(columns, rows));
  const canvas = document.createElement('canvas');
  canvas.width = Math.max(1, Math.round(columns * scale));
  canvas.height = Math.max(1, Math.round(rows * scale));
  const context = canvas.getContext('2d');
  if (context === null) return null;
  const picture = context.createImageData(canvas.width, canvas.height);
  const across = weights(canvas.width, map.columns);
  const down = weights(canvas.height, map.rows);
  for (const [y, row] of down.entries()) {
    for (const [x, column] of across.entries()) {
      const at = (r: number, c: number): number => levels[r * map.columns + c] ?? 0;
      const above = at(row.low, column.low) * (1 - column.share) + at(row.low, column.high) * column.share;
      const below = at(row.high, column.low) * (1 - column.share) + at(row.high, column.high) * column.share;
      const value = (above * (1 - row.share) + below * row.share) / 255;
      picture.data.set([...colour(value), Math.round(255 * Math.min(1, value * RISE))], 4 * (y * canvas.width + x));
    }
  }
  context.putImageData(picture, 0, 0);
  return canvas;
}

/** A strip from little to much evidence, for the legend. */
export function strip(canvas: HTMLCanvasElement): void {
  const context = canvas.getContext('2d');
  if (context === null) return;
  for (let x = 0; x < canvas.width; x += 1) {
    context.fillStyle = `rgb(${colour(0.15 + (0.85 * x) / (canvas.width - 1)).join(' ')})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

function levelsOf(map: LaidMap): Uint8Array | null {
  if (map.levels === '') return null;
  const levels = Uint8Array.from(atob(map.levels), (character) => character.charCodeAt(0));
  return levels.length === map.rows * map.columns ? levels : null;
}

/** Between which two cells' centres each pixel of a side lies, and how near it is to the second. */
function weights(pixels: number, cells: number): { low: number; high: number; share: number }[] {
  return Array.from({ length: pixels }, (_, pixel) => {
    const centre = Math.max(0, Math.min(cells - 1, ((pixel + 0.5) * cells) / pixels - 0.5));
    const low = Math.floor(centre);
    return { low, high: Math.min(cells - 1, low + 1), share: centre - low };
  });
}

function colour(value: number): [number, number, number] {
  const place = Math.max(0, Math.min(1, value)) * (RAMP.length - 1);
  const low = RAMP[Math.floor(place)] ?? [0, 0, 0];
  const high = RAMP[Math.ceil(place)] ?? low;
  const share = place - Math.floor(place);
  const mix = (channel: 0 | 1 | 2): number => Math.round(low[channel] * (1 - share) + high[channel] * share);
  return [mix(0), mix(1), mix(2)];
}
