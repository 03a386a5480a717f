// Which way the patient lies in the picture (PS3.3 C.7.6.1.1.1).

export interface Edges {
  left: string;
  right: string;
  top: string;
  bottom: string;
}

const LETTERS: readonly [string, string][] = [
  ['L', 'R'],
  ['P', 'A'],
  ['H', 'F'],
];

/** Letters for the picture's four edges from ImageOrientationPatient (six direction cosines), or null. */
export function edges(orientation: readonly number[]): Edges | null {
  if (orientation.length !== 6) return null;
  const right = direction(orientation.slice(0, 3));
  const bottom = direction(orientation.slice(3, 6));
  if (right === '' || bottom === '') return null;
  return { right, left: opposite(right), bottom, top: opposite(bottom) };
}

/** The letter of the main axis, then that of a second one where it leans noticeably. */
function direction(cosines: readonly number[]): string {
  return cosines
    .map((value, axis) => ({ size: Math.abs(value), letter: LETTERS[axis]?.[value >= 0 ? 0 : 1] ?? '' }))
    .filter(({ size }) => size > 0.3)
    .sort((a, b) => b.size - a.size)
    .slice(0, 2)
    .map(({ letter }) => letter)
    .join('');
}

function opposite(letters: string): string {
  return [...letters]
    .map((letter) => LETTERS.flatMap(([a, b]) => (letter === a ? [b] : letter === b ? [a] : []))[0] ?? '')
    .join('');
}
