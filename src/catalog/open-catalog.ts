// From settings to the driver they name.
import type { Settings } from '../config/settings.js';
import type { CatalogDriver } from './catalog-driver.js';
import { FileCatalog } from './file-catalog.js';

/** Null where no catalogue is configured: pgkv then pools one server and knows no key-value tables. */
export function openCatalog({ catalog }: Pick<Settings, 'catalog'>): CatalogDriver | null {
  return catalog.path === null ? null : new FileCatalog(catalog.path);
}
