// The list of keys and mouse buttons, which `?` opens.
import { make } from './layout';

const KEYS: readonly (readonly [readonly string[], string])[] = [
  [['↑', '↓', '←', '→'], 'Previous or next slice'],
  [['Page Up', 'Page Down'], 'Ten slices back or on'],
  [['Home', 'End'], 'First or last slice'],
  [['O'], 'What the model outlined, on or off'],
  [['M'], 'Map of where the model looked, on or off'],
  [['K'], 'What a person marked, on or off'],
  [['I'], 'Swap black and white'],
  [['R'], 'Back to the first view'],
  [['?'], 'This list'],
];
const MOUSE: readonly (readonly [readonly string[], string])[] = [
  [['Wheel'], 'Go through the slices'],
  [['Left button'], 'The tool that is chosen: drag'],
  [['Right button'], 'Zoom: drag up or down'],
  [['Middle button'], 'Move the image: drag'],
];

export class KeyList {
  readonly dialog = make('dialog', 'wv-help', { 'aria-labelledby': 'wv-help-title' });

  constructor(opener: HTMLButtonElement) {
    const close = make('button', 'wv-button', { type: 'button' }, 'Close');
    const words = make('p', 'wv-muted', {}, 'Keys work while the viewer has the focus.');
    this.dialog.append(make('h2', '', { id: 'wv-help-title' }, 'Keys and mouse'), list(KEYS), list(MOUSE), words, close);
    close.addEventListener('click', () => this.dialog.close());
    // The slice must not change under the list.
    this.dialog.addEventListener('keydown', (event) => event.stopPropagation());
    this.dialog.addEventListener('click', (event) => {
      if (event.target === this.dialog) this.dialog.close();
    });
    opener.addEventListener('click', () => this.open());
  }

  open(): void {
    if (!this.dialog.open) this.dialog.showModal();
  }
}

function list(lines: typeof KEYS): HTMLElement {
  return make(
    'dl',
    'wv-key-list',
    {},
    ...lines.map(([keys, words]) =>
      make('div', '', {}, make('dt', '', {}, ...keys.flatMap((key) => [make('kbd', '', {}, key), ' '])), make('dd', '', {}, words)),
    ),
  );
}
