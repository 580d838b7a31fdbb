# The image for those who have Docker: docker build --tag staffetta:0.1.0 .
# `make image` makes the same without a daemon.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /staffetta
COPY . .
# With --target, since the flags must not reach build scripts and macros.
RUN target=$(uname -m)-unknown-linux-gnu \
    && RUSTFLAGS="-C target-feature=+crt-static -C strip=symbols" \
       cargo build --locked --profile dist --target "$target" -p staffetta \
    && cp "target/$target/dist/staffetta" /usr/local/bin/staffetta

FROM scratch
LABEL org.opencontainers.image.title="staffetta" \
      org.opencontainers.image.description="SMTP relay for transactional and bulk mail" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /usr/local/bin/staffetta /usr/local/bin/staffetta
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV PATH=/usr/local/bin
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/staffetta"]
