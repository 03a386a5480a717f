// The line around a mask, along the edges of its pixels: nothing is smoothed, so that the line lies where the model drew it.

/** A mask: rows x columns bits, row by row, the first in the highest bit. */
export interface Mask {
  bits: Uint8Array;
  columns: number;
  rows: number;
}

// Directions of travel, clockwise: right, down, left, up.
const STEPS = [[1, 0], [0, 1], [-1, 0], [0, -1]] as const;
/** The pixel to the right of an edge that leaves a corner in each direction, as an offset from the corner. */
const RIGHT = [[0, 0], [-1, 0], [-1, -1], [0, -1]] as const;
/** … and the one to its left. */
const LEFT = [[0, -1], [0, 0], [-1, 0], [-1, -1]] as const;

/**
 * An SVG path in pixels of the frame, whose top left corner is 0, 0 (PS3.3 C.18.6.1.2). A closed line for each part and each
 * hole; parts that only touch at a corner stay apart. "" where the mask is empty.
 */
export function contour(mask: Mask): string {
  const { bits, columns, rows } = mask;
  const seen = new Uint8Array(columns * rows); // pixels whose upper edge is drawn
  const lines: string[] = [];
  for (let at = 0; at < seen.length; at += 1) {
    if (bits[at >> 3] === 0) {
      at |= 7; // eight pixels of nothing
      continue;
    }
    const [x, y] = [at % columns, Math.floor(at / columns)];
    if (seen[at] === 0 && leaves(mask, x, y, 0)) lines.push(lineFrom(mask, x, y, seen));
  }
  return lines.join('');
}

/** The closed line whose first edge is the upper one of pixel (x, y), with the mask on its right. */
function lineFrom(mask: Mask, x: number, y: number, seen: Uint8Array): string {
  let [column, row, direction] = [x, y, 0];
  let path = `M${x} ${y}`;
  do {
    if (direction === 0) seen[row * mask.columns + column] = 1;
    const [across, down] = STEPS[direction] ?? STEPS[0];
    column += across;
    row += down;
    const turn = [1, 0, 3].map((by) => (direction + by) % 4).find((next) => leaves(mask, column, row, next));
    if (turn === undefined) throw new Error('the line around a mask is not closed');
    if (turn !== direction) path += direction % 2 === 0 ? `H${column}` : `V${row}`;
    direction = turn;
  } while (column !== x || row !== y || direction !== 0);
  return `${path}Z`;
}

/** Whether an edge of the mask leaves this corner in this direction. */
function leaves(mask: Mask, x: number, y: number, direction: number): boolean {
  const [right, left] = [RIGHT[direction] ?? RIGHT[0], LEFT[direction] ?? LEFT[0]];
  return inside(mask, x + right[0], y + right[1]) && !inside(mask, x + left[0], y + left[1]);
}

function inside({ bits, columns, rows }: Mask, x: number, y: number): boolean {
  if (x < 0 || y < 0 || x >= columns || y >= rows) return false;
  const at = y * columns + x;
  return (((bits[at >> 3] ?? 0) >> (7 - (at & 7))) & 1) === 1;
}
