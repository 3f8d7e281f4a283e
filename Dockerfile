# docker build -t msekit .                                      # torch's usual wheel, which brings CUDA
# docker build -t msekit --build-arg TORCH_INDEX=URL .          # PyTorch's index of CPU wheels: a quarter of the size
# docker build -t msekit --build-arg EXTRAS=all .               # every feature
# docker run --rm --gpus all -v "$PWD:/work" -v msekit-cache:/cache msekit train …     # without --gpus: on the CPU
FROM python:3.12-slim

# for a GPU the host needs its driver and the NVIDIA container toolkit, nothing else
ARG TORCH_INDEX=
ARG EXTRAS=serve,plot,quant

# libraries of the system: bitsandbytes' on a CPU, and those of mediapipe's OpenCV. `model.compile` needs gcc beside them
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
        $(case ",$EXTRAS," in *,all,*|*,media,*|*,speech,*|*,asr,*) echo libgl1 libglib2.0-0 ;; esac) \
    && rm -rf /var/lib/apt/lists/*

RUN python -m pip install --no-cache-dir "torch>=2.7,<3" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
COPY pyproject.toml README.md LICENSE /msekit/
COPY msekit /msekit/msekit
COPY configs /msekit/configs
COPY launch /msekit/launch
RUN python -m pip install --no-cache-dir "/msekit${EXTRAS:+[$EXTRAS]}"

RUN useradd --create-home user && mkdir /cache /work && chown user /cache /work
USER user
WORKDIR /work
# data sets, downloads and backbones: keep them in a volume
ENV MSEKIT_CACHE=/cache/msekit HF_HOME=/cache/huggingface
VOLUME /cache
EXPOSE 7860
ENTRYPOINT ["msekit"]
CMD ["--help"]
