/** Any picture to the pixels that a network takes, as `kdtoolkit.edge.images` does in Python. */

const LUMA = [0.299, 0.587, 0.114]; // ITU-R BT.601

/**
 * Converts a picture to a network's channels and size.
 *
 * RGBA is laid over white. Colours become grey by their luma, grey is repeated for red, green and
 * blue. Another size is scaled to cover the network's, and cut about the centre.
 */
export function fit(picture, imageShape) {
  const { data, width, height, channels = 4 } = picture;
  const [rows, columns, wanted] = imageShape;
  const whole = width > 0 && height > 0 && data?.length === width * height * channels;
  if (!whole || ![1, 3, 4].includes(channels)) {
    throw new Error("`image` must have width * height pixels of 1, 3 or 4 channels");
  }
  const pixels = toChannels(data, channels, wanted);
  return cover(pixels, [height, width], [rows, columns], wanted);
}

function toChannels(data, channels, wanted) {
  if (channels === wanted) return Uint8Array.from(data);
  const count = data.length / channels;
  const pixels = new Uint8Array(count * wanted);
  const colour = [0, 0, 0];
  for (let i = 0; i < count; i++) {
    const opacity = channels === 4 ? data[4 * i + 3] / 255 : 1;
    for (let c = 0; c < 3; c++) {
      const value = data[channels * i + (channels === 1 ? 0 : c)];
      colour[c] = toByte(value * opacity + 255 * (1 - opacity));
    }
    if (wanted === 1) {
      pixels[i] = toByte(LUMA.reduce((sum, weight, c) => sum + weight * colour[c], 0));
    } else {
      pixels.set(colour, 3 * i);
    }
  }
  return pixels;
}

/** Scales pixels to cover a size, keeping their proportions, and cuts them about the centre. */
function cover(pixels, stored, size, channels) {
  if (stored[0] === size[0] && stored[1] === size[1]) return pixels;
  const scale = Math.max(size[0] / stored[0], size[1] / stored[1]);
  const scaled = stored.map((length, axis) => Math.max(roundHalfEven(length * scale), size[axis]));
  const steps = stored.map((length, axis) => length / scaled[axis]);
  const cut = scaled.map((length, axis) => Math.floor((length - size[axis]) / 2));
  const shape = [stored[0], stored[1], channels];
  const tall = resample(pixels, shape, 0, steps[0], cut[0], size[0]);
  const both = resample(tall, [size[0], stored[1], channels], 1, steps[1], cut[1], size[1]);
  return Uint8Array.from(both, toByte);
}

/** Rows, or columns, `start` to `start + count` of the scaled picture: means weighted by a triangle. */
function resample(source, [height, width, channels], axis, step, start, count) {
  const shape = axis === 0 ? [count, width] : [height, count];
  const length = axis === 0 ? height : width;
  const stride = axis === 0 ? width * channels : channels;
  const result = new Float32Array(shape[0] * shape[1] * channels);
  const radius = Math.max(step, 1);
  for (let place = 0; place < count; place++) {
    const centre = (start + place + 0.5) * step;
    const first = Math.max(Math.trunc(centre - radius), 0);
    const last = Math.min(Math.ceil(centre + radius), length);
    const weights = [];
    for (let i = first; i < last; i++) {
      weights.push(Math.max(1 - Math.abs(i + 0.5 - centre) / radius, 0));
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const [lines, lineStride] = axis === 0 ? [width * channels, 1] : [height, width * channels];
    for (let line = 0; line < lines; line++) {
      for (let c = 0; c < (axis === 0 ? 1 : channels); c++) {
        let sum = 0;
        for (let i = 0; i < weights.length; i++) {
          sum += Math.fround(weights[i] / total) * source[(first + i) * stride + line * lineStride + c];
        }
        const to = axis === 0 ? place * width * channels + line : (line * count + place) * channels + c;
        result[to] = sum;
      }
    }
  }
  return result;
}

function toByte(value) {
  return Math.min(Math.max(roundHalfEven(value), 0), 255);
}

/** As NumPy rounds: a half to the even number. */
function roundHalfEven(value) {
  const rounded = Math.round(value);
  return Math.abs(value % 1) === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
}
