// The views of the router's life: the first from configuration and catalogue, the next from whatever is written to the
// catalogue. Holds the router's lock on it.
import { messageOf } from '../base/errors.js';
import type { CatalogDriver } from '../catalog/catalog-driver.js';
import { CatalogError } from '../catalog/catalog-error.js';
import { primaryFirst, viewFrom } from '../catalog/view-from.js';
import { type ClusterView, initialView } from '../cluster/cluster-view.js';
import { ViewHolder } from '../cluster/view-holder.js';
import type { Settings } from '../config/settings.js';
import type { Logger } from '../telemetry/log.js';

export interface CatalogViews {
  readonly views: ViewHolder;
  /** From now on takes over what is written. */
  watch(): void;
  /** Idempotent. */
  close(): void;
}

/**
 * @param catalog null: there are only the shards of the configuration
 * @throws CatalogError where the catalogue is taken, or does not fit the configuration
 */
export async function openCatalogViews(
  settings: Settings,
  catalog: CatalogDriver | null,
  log: Logger,
): Promise<CatalogViews> {
  if (catalog === null) {
    const views = new ViewHolder(configuredView(settings));
    return { views, watch: () => undefined, close: () => undefined };
  }
  const lock = await catalog.acquireRouterLock();
  const close = (): void => {
    catalog.close();
    lock.release();
  };
  try {
    const views = new ViewHolder(await catalogView(settings, catalog));
    return { views, watch: () => void watchCatalog(catalog, settings, views, log), close };
  } catch (error) {
    close();
    throw error;
  }
}

function configuredView({ shards }: Settings): ClusterView {
  return initialView(shards.map(({ name, slots, nodes }) => ({ name, hashSlots: slots, nodes: primaryFirst(nodes) })));
}

async function catalogView(settings: Settings, catalog: CatalogDriver): Promise<ClusterView> {
  const state = await catalog.read();
  // Without its catalogue a key-value table would be taken for an ordinary one of the home shard.
  if (state === null) throw new CatalogError(`there is no catalogue at ${catalog.place}`, { hint: 'Run "pgkv init".' });
  return viewFrom(settings.shards, state);
}

/** Until the catalogue is closed. */
function watchCatalog(catalog: CatalogDriver, settings: Settings, views: ViewHolder, log: Logger): void {
  const failed = (error: unknown): void => {
    log.error({ catalog: catalog.place, reason: messageOf(error) }, 'the catalogue cannot be used; the last map stays');
  };
  catalog.watch((state) => {
    try {
      const next = viewFrom(settings.shards, state);
      if (next.shards.some(({ name }, index) => views.current.shards[index]?.name !== name)) {
        throw new Error('its shards are others than at the start; restart pgkv');
      }
      views.swap(next);
      log.info({ epoch: next.epoch, tables: next.tables.length }, 'the map has changed');
    } catch (error) {
      failed(error);
    }
  }, failed);
}
