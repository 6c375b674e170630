import type * as LiteRt from "@litertjs/core";
import type { Picture } from "./pixels.js";

export type { Picture };

/** One trade between accuracy and cost. */
export interface OperatingPoint {
  /** Confidence at which each exit but the last stops; above 1 it never does. */
  thresholds: number[];
  validation_accuracy: number;
  /** Mean cost of an image relative to the plain network's. */
  cost: number;
}

/** What is certified of an operating point. */
export interface Certificate {
  index: number;
  risk: "disagreement" | "accuracy";
  limit: number;
  confidence: number;
  observed: number;
  bound: number;
  images: number;
}

/** What a classifier says of an image. */
export interface Prediction {
  label: string;
  index: number;
  /** Probability of the class at the exit's temperature. */
  confidence: number;
  exit: string;
  milliseconds: number;
}

export class EarlyExitClassifier {
  private constructor();
  static load(
    litert: typeof LiteRt,
    source: string | URL | Uint8Array,
    options?: LiteRt.CompileOptions,
  ): Promise<EarlyExitClassifier>;
  readonly labels: string[];
  /** Height, width and channels that the network takes. */
  readonly imageShape: [number, number, number];
  readonly exits: string[];
  readonly costs: number[];
  readonly temperatures: number[];
  readonly operatingPoints: OperatingPoint[];
  readonly certificate: Certificate | null;
  operatingPoint: number | null;
  thresholds: number[];
  predict(image: Picture): Promise<Prediction>;
  logits(image: Picture): Promise<Float32Array[]>;
  delete(): void;
}

export function surest(logits: ArrayLike<number>, temperature: number): [number, number];

export function readPackage(
  bytes: Uint8Array,
): Promise<{ labels: string[]; values: Record<string, unknown>; end: number }>;
