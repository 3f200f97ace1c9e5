// Places in a text: the parser gives them in bytes of UTF-8, strings have them in UTF-16 units.

/** UTF-16 offsets of byte offsets that are asked for in ascending order: the text is walked through once. */
export function utf16Offsets(text: string): (byteOffset: number) => number {
  const bytes = Buffer.from(text);
  if (bytes.length === text.length) return (byteOffset) => byteOffset;
  let measured = 0;
  let units = 0;
  return (byteOffset) => {
    if (byteOffset < measured) measured = units = 0;
    units += bytes.toString('utf8', measured, byteOffset).length;
    measured = byteOffset;
    return units;
  };
}
