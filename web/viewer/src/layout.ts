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
  map: 'M12 4a8 8 0 1 0 0 16a8 8 0 1 0 0-16M12 8a4 4 0 1 0 0 8a4 4 0 1 0 0-8M12 11.5v1',
  outline: 'M7 5c4-3 9-1 11 3s1 9-3 11s-9-1-10-5s-1-7 2-9',
  help: 'M9 9a3 3 0 1 1 4.5 2.6c-1 .6-1.5 1.1-1.5 2.4M12 17.5v.5M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18',
  marks: 'M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M9 9h6v6H9z',
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
  map: HTMLButtonElement;
  opacity: HTMLInputElement;
  models: HTMLSelectElement;
  marks: HTMLButtonElement;
  outlined: HTMLElement; // what the model outlined: switch, legend and slider
  outline: HTMLButtonElement;
  fill: HTMLInputElement;
  legendList: HTMLElement;
  outlineLayer: SVGSVGElement;
  outlineWords: HTMLElement;
  help: HTMLButtonElement;
  keys: HTMLElement;
  stage: HTMLElement;
  viewport: HTMLDivElement;
  mapLayer: HTMLCanvasElement;
  outlines: SVGSVGElement;
  notes: HTMLElement;
  legend: HTMLElement;
  legendStrip: HTMLCanvasElement;
  legendWords: HTMLElement;
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
  const help = button('help', 'Keys', 'List of keys (?)');
  help.classList.add('wv-help-opener');
  const map = button('map', 'Map', 'Where the model looked, laid over the image (M)');
  const opacity = make('input', 'wv-opacity', {
    type: 'range', min: '10', max: '80', value: '50', title: 'How strong the map is', 'aria-label': 'How strong the map is, in percent',
  });
  const models = make('select', 'wv-presets', { 'aria-label': 'Whose map' });
  const marks = button('marks', 'Mark', 'What a person marked (K)');
  for (const control of [map, opacity, models, marks]) control.hidden = true; // until there is something to lay over
  const toolbar = make(
    'div',
    'wv-toolbar',
    { role: 'toolbar', 'aria-label': 'Image tools' },
    make('div', 'wv-group', { role: 'group', 'aria-label': 'Mouse and finger' }, ...Object.values(tools)),
    make('div', 'wv-group', {}, invert, reset, presets),
    help,
  );
  const keys = make('div', 'wv-group', { role: 'group', 'aria-label': 'Key images' });
  keys.hidden = true;
  const laid = make('div', 'wv-group wv-laid', { role: 'group', 'aria-label': 'Laid over the image' }, map, opacity, models, marks);
  const outline = button('outline', 'Outline', 'What the model outlined, laid over the image (O)');
  const fill = make('input', 'wv-opacity', {
    type: 'range', min: '0', max: '60', value: '0', title: 'How much the outlined area is filled', 'aria-label': 'How much the outlined area is filled',
  });
  const legendList = make('ul', 'wv-entries', { 'aria-label': 'What the model outlined, and its volume over all slices' });
  const outlined = make('div', 'wv-outlined', { role: 'group', 'aria-label': 'Outlined by the model' }, outline, legendList, make('label', 'wv-fill', {}, 'Fill', fill));
  outlined.hidden = outline.hidden = true;
  const answer = make('div', 'wv-keys', {}, keys, outlined, laid);

  const viewport = make('div', 'wv-viewport', { role: 'img', tabindex: '0', 'aria-label': 'No image yet' });
  const mapLayer = make('canvas', 'wv-layer', { 'aria-hidden': 'true' });
  const outlineLayer = svg('svg', { class: 'wv-layer', 'aria-hidden': 'true' });
  const outlines = svg('svg', { class: 'wv-layer', 'aria-hidden': 'true' });
  const notes = make('div', 'wv-layer wv-notes');
  const legendStrip = make('canvas', 'wv-strip', { width: '96', height: '10', role: 'img', 'aria-label': 'from little evidence, dark, to much, bright' });
  const legendWords = make('span', 'wv-legend-words');
  const scale = make('span', 'wv-scale', {}, make('span', '', { 'aria-hidden': 'true' }, 'less'), legendStrip, make('span', '', { 'aria-hidden': 'true' }, 'more'));
  const legend = make('div', 'wv-legend', { role: 'status' }, scale, legendWords);
  legend.hidden = true;
  const outlineWords = make('div', 'wv-legend', { role: 'status' });
  outlineWords.hidden = true;
  const legends = make('div', 'wv-legends', {}, outlineWords, legend);
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
  const stage = make('div', 'wv-stage', {}, viewport, mapLayer, outlineLayer, outlines, notes, overlays, legends, status);

  const slider = make('input', 'wv-slider', { type: 'range', min: '1', max: '1', value: '1', 'aria-label': 'Slice' });
  const position = make('output', 'wv-position', {}, '– / –');
  const previous = button('previous', 'Previous slice', 'Previous slice (arrow up)', true);
  const next = button('next', 'Next slice', 'Next slice (arrow down)', true);
  const slices = make('div', 'wv-slices', {}, previous, slider, next, position);

  const main = make('div', 'wv-main', {}, toolbar, answer, stage, slices);
  const root = make('div', 'wv', { role: 'group', 'aria-label': 'Image viewer' }, seriesPanel, main);
  return {
    root, seriesPanel, seriesList, tools, invert, reset, presets, map, opacity, models, marks,
    outlined, outline, fill, legendList, outlineLayer, outlineWords, help, keys, stage, viewport,
    mapLayer, outlines, notes, legend, legendStrip, legendWords, corner, edge,
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

/** Make an SVG element with attributes. */
export function svg<K extends keyof SVGElementTagNameMap>(tag: K, attributes: Record<string, string>): SVGElementTagNameMap[K] {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function drawing(path: string): SVGElement {
  const picture = svg('svg', { viewBox: '0 0 24 24', 'aria-hidden': 'true', class: 'wv-icon' });
  picture.append(svg('path', { d: path }));
  return picture;
}
