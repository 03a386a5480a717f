// The viewer's elements: made here, filled and listened to elsewhere. No HTML text, so that no policy has to be loosened.
import type { ToolName } from './stack';

const SVG = 'http://www.w3.org/2000/svg';

/** Strokes on a 24 by 24 grid. */
const ICONS = {
  window: 'M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 3v18M15 5.5v13M18 8v8',
  pan: 'M12 3v18M3 12h18M12 3l-3 3M12 3l3 3M12 21l-3-3M12 21l3-3M3 12l3-3M3 12l3 3M21 12l-3-3M21 12l-3 3',
  zoom: 'M10.5 4a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13M15.3 15.3L21 21M10.5 7.5v6M7.5 10.5h6',
  scroll: 'M6 4h12v16H6zM9 8h6M9 12h6M9 16h6',
  invert: 'M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18M12 7a5 5 0 0 1 0 10z',
  reset: 'M4 12a8 8 0 1 0 2.5-5.8M4 4v5h5',
  previous: 'M15 5l-7 7l7 7',
  next: 'M9 5l7 7l-7 7',
} as const;

export const TOOL_LABELS: Record<ToolName, string> = { window: 'Window', pan: 'Pan', zoom: 'Zoom', scroll: 'Scroll' };

export interface Layout {
  root: HTMLElement;
  seriesPanel: HTMLElement;
  seriesList: HTMLElement;
  tools: Record<ToolName, HTMLButtonElement>;
  invert: HTMLButtonElement;
  reset: HTMLButtonElement;
  presets: HTMLSelectElement;
  keys: HTMLElement;
  stage: HTMLElement;
  viewport: HTMLDivElement;
  corner: { topLeft: HTMLElement; topRight: HTMLElement; bottomLeft: HTMLElement; bottomRight: HTMLElement };
  edge: { left: HTMLElement; right: HTMLElement; top: HTMLElement; bottom: HTMLElement };
  status: HTMLElement;
  statusText: HTMLElement;
  retry: HTMLButtonElement;
  slider: HTMLInputElement;
  position: HTMLOutputElement;
  previous: HTMLButtonElement;
  next: HTMLButtonElement;
}

/** Build the whole viewer, detached. */
export function buildLayout(): Layout {
  const seriesList = make('ul', 'wv-series-list');
  const seriesPanel = make('nav', 'wv-series', { 'aria-label': 'Series' }, seriesList);
  const tools = {
    window: button('window', TOOL_LABELS.window, 'Brightness and contrast: drag'),
    pan: button('pan', TOOL_LABELS.pan, 'Move the image: drag'),
    zoom: button('zoom', TOOL_LABELS.zoom, 'Zoom: drag up or down'),
    scroll: button('scroll', TOOL_LABELS.scroll, 'Go through the slices: drag up or down'),
  };
  const invert = button('invert', 'Invert', 'Swap black and white (I)');
  const reset = button('reset', 'Reset', 'Back to the first view (R)');
  const presets = make('select', 'wv-presets', { 'aria-label': 'Window preset' });
  presets.hidden = true;
  const toolbar = make(
    'div',
    'wv-toolbar',
    { role: 'toolbar', 'aria-label': 'Image tools' },
    make('div', 'wv-group', { role: 'group', 'aria-label': 'Mouse and finger' }, ...Object.values(tools)),
    make('div', 'wv-group', {}, invert, reset, presets),
  );
  const keys = make('div', 'wv-keys', { role: 'group', 'aria-label': 'Key images' });
  keys.hidden = true;

  const viewport = make('div', 'wv-viewport', { role: 'img', tabindex: '0', 'aria-label': 'No image yet' });
  const corner = {
    topLeft: make('div', 'wv-overlay wv-top-left'),
    topRight: make('div', 'wv-overlay wv-top-right'),
    bottomLeft: make('div', 'wv-overlay wv-bottom-left'),
    bottomRight: make('div', 'wv-overlay wv-bottom-right'),
  };
  const edge = {
    left: make('div', 'wv-edge wv-edge-left'),
    right: make('div', 'wv-edge wv-edge-right'),
    top: make('div', 'wv-edge wv-edge-top'),
    bottom: make('div', 'wv-edge wv-edge-bottom'),
  };
  const statusText = make('p', 'wv-status-text', { role: 'status' });
  const retry = make('button', 'wv-button', { type: 'button' }, 'Try again');
  const status = make('div', 'wv-status', {}, statusText, retry);
  const overlays = make('div', 'wv-overlays', { 'aria-hidden': 'true' }, ...Object.values(corner), ...Object.values(edge));
  const stage = make('div', 'wv-stage', {}, viewport, overlays, status);

  const slider = make('input', 'wv-slider', { type: 'range', min: '1', max: '1', value: '1', 'aria-label': 'Slice' });
  const position = make('output', 'wv-position', {}, '– / –');
  const previous = button('previous', 'Previous slice', 'Previous slice (arrow up)', true);
  const next = button('next', 'Next slice', 'Next slice (arrow down)', true);
  const slices = make('div', 'wv-slices', {}, previous, slider, next, position);

  const main = make('div', 'wv-main', {}, toolbar, keys, stage, slices);
  const root = make('div', 'wv', { role: 'group', 'aria-label': 'Image viewer' }, seriesPanel, main);
  return {
    root, seriesPanel, seriesList, tools, invert, reset, presets, keys, stage, viewport, corner, edge,
    status, statusText, retry, slider, position, previous, next,
  };
}

/** Make an element with a class, attributes and children. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className: string,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  element.className = className;
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function button(icon: keyof typeof ICONS, label: string, title: string, iconOnly = false): HTMLButtonElement {
  const made = make('button', 'wv-button', { type: 'button', title, 'aria-label': label }, drawing(ICONS[icon]));
  if (!iconOnly) made.append(make('span', 'wv-label', {}, label));
  return made;
}

function drawing(path: string): SVGElement {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('aria-hidden', 'true');
  svg.setAttribute('class', 'wv-icon');
  const line = document.createElementNS(SVG, 'path');
  line.setAttribute('d', path);
  svg.append(line);
  return svg;
}
