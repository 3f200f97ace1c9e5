# The image of `pgkv start`, for production: the package and what it needs at run time, no compiler, no embedded
# Postgres, no root. It holds no settings: mount them as /etc/pgkv/pgkv.toml.
#
#     docker build --tag pgkv .
#
# BuildKit is needed (the default since Docker 23; DOCKER_BUILDKIT=1 before). A registry of your own:
# --secret id=npmrc,src=$HOME/.npmrc, which no layer keeps. BASE: any Linux image with Node 20.19 or newer, npm and tar.
ARG BASE=node:24-bookworm-slim

FROM ${BASE} AS dependencies
WORKDIR /dependencies
COPY package.json package-lock.json ./
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc \
    npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund && npm cache clean --force

FROM ${BASE} AS build
WORKDIR /build
COPY package.json package-lock.json ./
# --include: a base may set NODE_ENV=production, which would leave the compiler out.
RUN --mount=type=secret,id=npmrc,target=/root/.npmrc \
    npm ci --include=dev --omit=optional --ignore-scripts --no-audit --no-fund
COPY . .
# What is in the package is stated once, under "files" in package.json.
RUN npm run build \
    && mkdir /package \
    && npm pack --ignore-scripts --loglevel=error --pack-destination /tmp \
    && tar --extract --gzip --file /tmp/pgkv-*.tgz --directory /package --strip-components 1

FROM ${BASE}
# PGKV_HEALTH_URL: for settings with another [http] port.
ENV NODE_ENV=production \
    PGKV_HEALTH_URL=http://127.0.0.1:7433/ready
WORKDIR /app
COPY --from=dependencies /dependencies/node_modules ./node_modules
COPY --from=build /package ./
# A number, so that Kubernetes can check runAsNonRoot, and so that a base needs no tool to add users.
USER 10001:10001
EXPOSE 7432 7433
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
  CMD ["node", "-e", "fetch(process.env.PGKV_HEALTH_URL).then(async (reply) => { console.log(await reply.text()); process.exitCode = reply.ok ? 0 : 1; }, (error) => { console.log(String(error.cause ?? error)); process.exitCode = 1; })"]
# Drains transactions for drain.timeout_ms; docker stop kills after 10 s unless told to wait longer.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node", "/app/dist/cli.js"]
CMD ["start", "--config", "/etc/pgkv/pgkv.toml"]
# Last, since they change with every build and the layers above do not.
ARG VERSION=""
ARG REVISION=""
LABEL org.opencontainers.image.title="pgkv" \
      org.opencontainers.image.description="PostgreSQL wire-compatible router that makes ordinary Postgres servers one scalable key-value store" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
