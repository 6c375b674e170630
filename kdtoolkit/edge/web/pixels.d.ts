/** Pixels from 0 to 255, row by row: `ImageData`, or with 1 or 3 channels. */
export interface Picture {
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
  /** 1, 3 or 4; by default 4. */
  channels?: number;
}

/** The pixels that a network of `(height, width, channels)` takes. */
export function fit(picture: Picture, imageShape: readonly [number, number, number]): Uint8Array;
