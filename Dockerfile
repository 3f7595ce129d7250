# The stand-alone server, from a checkout. docs/how-to/run-in-containers.md says how to run it.
FROM python:3.13-slim AS build
COPY pyproject.toml README.md LICENSE /checkout/
COPY src /checkout/src
COPY policy /checkout/policy
RUN python -m venv /opt/govbudget \
    && /opt/govbudget/bin/pip install --no-cache-dir "/checkout[serve]"

FROM python:3.13-slim
COPY --from=build /opt/govbudget /opt/govbudget
ENV PATH=/opt/govbudget/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# A number, so that an orchestrator can see that it is not root. It owns no file.
USER 10001:10001
EXPOSE 8080
# Of the process, not of the database: a server whose database is away need not be started anew.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=2)"]
ENTRYPOINT ["govbudget"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8080"]
