# One image, both commands: `fakecloud` (the default) and `fakecloud-ccm`.
# Works with the classic builder and with BuildKit.

FROM python:3.13-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
# The dependencies change rarely: their layer is made once and kept. Of `kubernetes` the controller
# uses configuration, authentication and transport: the generated API classes (115 MB) stay out.
COPY requirements.lock ./
RUN pip install --no-compile --require-hashes --only-binary=:all: --target=/dependencies \
      --requirement requirements.lock \
 && rm -rf /dependencies/bin \
 && cd /dependencies/kubernetes \
 && find client/api client/models aio/client/api aio/client/models -name '*.py' ! -name __init__.py -delete \
 && find /dependencies \( -name '*.pyx' -o -name '*.pxd' -o -name '*.pyi' \) -delete \
 && python -m compileall -q -j 2 /dependencies
COPY pyproject.toml README.md LICENSE ./
COPY ccm ccm
COPY fakecloud fakecloud
COPY manifests/base manifests/base
COPY manifests/components/pod-networks manifests/components/pod-networks
RUN pip install --no-compile --no-deps --target=/product . \
 && python -m compileall -q /product

FROM python:3.13-slim
LABEL org.opencontainers.image.title="fakecloud" \
      org.opencontainers.image.description="A small cloud on your own machine, and its Kubernetes cloud controller manager" \
      org.opencontainers.image.licenses="Apache-2.0"
# A number of its own for HAProxy, fixed before Debian's package picks one.
RUN groupadd --system --gid 990 haproxy \
 && useradd --system --uid 990 --gid 990 --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin haproxy \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends haproxy nftables \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/log/*.log \
      /var/log/apt /usr/share/doc /usr/share/man \
 && mkdir -p /var/lib/fakecloud /run/fakecloud \
 && chmod 0700 /var/lib/fakecloud /run/fakecloud
COPY --from=build /dependencies /opt/dependencies
COPY --from=build /product /opt/fakecloud
ENV PATH=/opt/fakecloud/bin:$PATH \
    PYTHONPATH=/opt/fakecloud:/opt/dependencies \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    FAKECLOUD_STATE_DIR=/var/lib/fakecloud \
    FAKECLOUD_RUNTIME_DIR=/run/fakecloud \
    FAKECLOUD_TOKEN_FILE=/var/lib/fakecloud/admin.token \
    FAKECLOUD_HAPROXY_USER=990:990
# Fails here, not at the user's, when a dependency is missing.
RUN fakecloud --help > /dev/null && FAKECLOUD_TOKEN=t fakecloud-ccm manifests --cluster-name c --cloud-token-file /dev/null > /dev/null \
 && python -c 'import fakecloud.app, fakecloud.container, ccm.app, pyroute2'
VOLUME /var/lib/fakecloud
EXPOSE 8440
STOPSIGNAL SIGTERM
# An engine doesn't end a check that is late: on a busy machine they would pile up.
HEALTHCHECK --interval=5s --timeout=4s --start-period=20s --retries=3 \
  CMD ["timeout", "--signal=KILL", "4", "python", "-S", "-m", "fakecloud.container", "--health"]
# Process 1 restarts a crashed server, adopts and reaps the HAProxy processes that it left.
CMD ["python", "-m", "fakecloud.container", "fakecloud", "serve"]
