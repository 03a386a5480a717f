// Stands in for parts of the libraries that this viewer never uses: readers of surface meshes, and codecs, because our
// server sends every frame decoded. See the aliases in vite.config.ts.

/** What vtk.js readers are asked for. */
export function newInstance(): never {
  throw new Error('this viewer reads no surface meshes');
}

/** What a codec's factory gives; a frame that needs one cannot be shown. */
export default function absent(): Promise<never> {
  return Promise.reject(new Error('this viewer has no codecs: the server sends frames decoded'));
}

absent.newInstance = newInstance;
