# The images of docker-compose.yml, from nothing: `make images` compiles on the host and gives what it built as the context.
FROM scratch AS millrace
COPY root/ /
COPY millrace /bin/millrace
ENV PATH=/bin MILLRACE_HOME=/data/home
ENTRYPOINT ["/bin/millrace"]
CMD ["--help"]

FROM scratch AS minio
COPY root/ /
COPY millrace minio /bin/
ENV PATH=/bin
ENTRYPOINT ["/bin/millrace", "container"]
CMD ["minio"]
