# The one image of operator and agent: `hauberk-operator run` and `hauberk-agent run`.
#
# The base is any Debian with Python 3.11 or later and its venv module. The dependencies are a layer of their own, so that
# a change of our code makes one new layer of some hundred kilobytes, the last, and nothing else.
ARG PYTHON=python:3.13-slim

FROM ${PYTHON} AS dependencies
COPY requirements/runtime.txt requirements/build.txt /requirements/
# pip and the build backend live in an environment of their own, which stays behind in this stage. What is installed is
# compiled here (unchecked-hash: file times do not survive every registry), as the containers' root is read-only; but
# for the Kubernetes client's API classes and models, two thousand files that it loads on demand and we never use.
RUN python3 -m venv /opt/pip \
    && /opt/pip/bin/pip install --no-cache-dir --require-hashes --requirement /requirements/build.txt \
    && python3 -m venv --without-pip /opt/hauberk \
    && /opt/pip/bin/pip --python /opt/hauberk/bin/python install --no-cache-dir --no-compile --require-hashes \
        --requirement /requirements/runtime.txt \
    && /opt/hauberk/bin/python -m compileall -q --invalidation-mode unchecked-hash -x '/client/(api|models)/(?!__init__)' /opt/hauberk/lib

FROM dependencies AS packages
# .dockerignore admits what the wheel is made of, and nothing else.
COPY . /source
RUN /opt/pip/bin/pip wheel --quiet --no-index --no-deps --no-build-isolation --wheel-dir /wheels /source \
    && /opt/pip/bin/pip --python /opt/hauberk/bin/python install --quiet --no-index --no-deps --no-compile \
        --no-warn-script-location --root /packages /wheels/*.whl \
    && /opt/hauberk/bin/python -m compileall -q -s /packages --invalidation-mode unchecked-hash /packages

FROM ${PYTHON}
LABEL org.opencontainers.image.title="Hauberk" \
    org.opencontainers.image.description="IKEv2 and the kernel's ESP between the nodes of a Kubernetes cluster" \
    org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/hauberk/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# The agent needs uid 0 for its capabilities; the chart runs the operator as another user.
USER 0
CMD ["hauberk-agent", "--help"]
# Python's own library, which some bases have uncompiled: each start of a program would compile two hundred modules.
RUN python3 -m compileall -qf --invalidation-mode unchecked-hash \
    -x '/(ensurepip|idlelib|site-packages|dist-packages|test|tests|tkinter|turtledemo)/' \
    "$(python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY --from=dependencies /opt/hauberk /opt/hauberk
COPY --from=packages /packages /
