// Walking through syntax trees without an object for each step: a text of 16,000 tokens has a tree of 100,000 objects, and
// half a dozen questions are asked of it. Trees can be some thousand nodes deep, so that walks keep stacks of their own.

type Fields = Readonly<Record<string, unknown>>;

/** Puts what a node or a list holds on the stack, in its order. */
export function pushChildren(item: object, stack: object[]): void {
  if (Array.isArray(item)) {
    for (const element of item) if (typeof element === 'object' && element !== null) stack.push(element);
    return;
  }
  for (const name in item) {
    const value = (item as Fields)[name];
    if (typeof value === 'object' && value !== null) stack.push(value);
  }
}
