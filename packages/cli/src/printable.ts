/** Text of documents, file names and errors for a terminal: nothing in it can move the cursor or change colours. */

/** One line: line breaks and tabs as spaces, control characters and direction marks as U+FFFD. */
export function oneLine(text: string): string {
  // Cc: escape sequences; Cf holds the marks that reorder a line, and also the joiners of emoji (U+200C, U+200D).
  return text.replace(/\s/g, " ").replace(/(?![\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}]/gu, "\ufffd");
}

/** `text` on one line, at most `length` UTF-16 units of it and then an ellipsis. */
export function shortened(text: string, length: number): string {
  const line = oneLine(text.replace(/\s+/g, " ").trim());
  if (line.length <= length) return line;
  const cut = line.slice(0, length);
  const word = cut.lastIndexOf(" ");
  // A character of two units may have been cut in half.
  return `${cut.slice(0, word > length / 2 ? word : length).replace(/\p{Cs}$/u, "")} …`;
}

/** With thousands separators: 4596 becomes "4,596". */
export function grouped(count: number): string {
  return count.toLocaleString("en-US");
}

/** "1 document", "2,000 documents", "3 queries", "4 batches". */
export function counted(count: number, noun: string): string {
  const plural = noun.endsWith("ry") ? `${noun.slice(0, -1)}ies` : `${noun}${noun.endsWith("ch") ? "es" : "s"}`;
  return `${grouped(count)} ${count === 1 ? noun : plural}`;
}

/** As on a clock, "1:05", or "1:02:03". */
export function clock(seconds: number): string {
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const rest = String(whole % 60).padStart(2, "0");
  return hours > 0 ? `${hours}:${String(minutes).padStart(2, "0")}:${rest}` : `${minutes}:${rest}`;
}
