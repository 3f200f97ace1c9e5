// The text of a merged statement as all processes have it: each draws a name of its own for what carries the members' values.
import { TOKEN } from './member-rows.js';

export const commonText = (text: string): string => text.replaceAll(TOKEN, '');
