# What tests/support/teacher.py runs in: a scripted stand-in for the LLM.
ARG BASE_IMAGE=python:3.11-slim
FROM ${BASE_IMAGE}
RUN pip install --no-cache-dir aiohttp==3.14.5
WORKDIR /app
USER nobody
