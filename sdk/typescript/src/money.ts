import { LLMProxyError } from "./errors.js";

const most = 2n ** 63n - 1n;

/**
 * Makes nano-dollars (1e-9 USD), exactly, of an amount in USD: 5, 0.25, "0.25",
 * "1e-6". Throws for what is no amount, is negative, has more than 9 decimals, or
 * is too much.
 */
export function nanoUsd(usd: number | string): string {
  const wrong = (why: string) => new LLMProxyError(`the amount ${JSON.stringify(String(usd))} ${why}`);
  const parts = /^(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,3}))?$/.exec(String(usd).trim());
  const whole = parts?.[1] ?? "";
  const fraction = parts?.[2] ?? "";
  if (!parts || whole + fraction === "") throw wrong("is not an amount in USD");
  const shift = 9 + Number(parts[3] ?? 0) - fraction.length;
  const digits = (whole + fraction).replace(/^0+/, "");
  if (digits === "") return "0";
  const kept = shift < 0 ? digits.slice(0, shift) : digits;
  if (/[1-9]/.test(digits.slice(kept.length)) || kept === "") throw wrong("has more than 9 decimals");
  if (kept.length + shift > 19) throw wrong("is too much");
  const nano = BigInt(kept) * 10n ** BigInt(Math.max(shift, 0));
  if (nano > most) throw wrong("is too much");
  return nano.toString();
}

/** Writes nano-dollars as USD, exactly: "-1500000" is "-0.0015". */
export function usdOfNano(nano: string | bigint): string {
  const n = BigInt(nano);
  const digits = (n < 0n ? -n : n).toString().padStart(10, "0");
  const fraction = digits.slice(-9).replace(/0+$/, "");
  return (n < 0n ? "-" : "") + digits.slice(0, -9) + (fraction && "." + fraction);
}
