// Workers that merge together before real servers with key-value tables, and what each of them has handed over and taken.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Test } from 'tap';
import { renderCatalog } from '../../src/catalog/catalog-state.js';
import type { KvServers } from './kv-cluster.js';
import { startWorkerRouter, type WorkerRouter, workerConfig } from './worker-router.js';

export interface SharedWorkersOptions {
  readonly program: string;
  readonly workers: number;
  /** `merged.share_across_workers` */
  readonly share?: 'auto' | 'on' | 'off';
  /** Further lines of [merged], and further sections. */
  readonly merged?: string;
  readonly more?: string;
}

export async function sharedWorkers(
  t: Test,
  { servers, catalog }: KvServers,
  { program, workers, share = 'on', merged = '', more = '' }: SharedWorkersOptions,
): Promise<WorkerRouter> {
  const pool = more.includes('[pool]') ? '' : '[pool]\nsize_max = 8\n';
  const options = {
    ...{ program, servers, workers },
    more: `[catalog]\npath = "catalog.json"\n[merged]\nshare_across_workers = "${share}"\n${merged}\n${pool}${more}`,
  };
  const place = await workerConfig(t, options);
  const state = await catalog.read();
  writeFileSync(join(place.folder, 'catalog.json'), renderCatalog(state!));
  return startWorkerRouter(t, options, place);
}

/** Since the start of the router, over all workers. */
export async function handedOver(router: WorkerRouter): Promise<{ handed: number; owned: number; takenBack: number }> {
  const metrics = await router.metrics();
  const of = (name: string): number => metrics.get(`pgkv_merged_${name}_total`)!;
  return { handed: of('handed'), owned: of('owned'), takenBack: of('taken_back') };
}
