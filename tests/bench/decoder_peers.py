"""What other programs reach on the machine and model of the decoder bench, which starts this and prints the ratios.

    python tests/bench/decoder_peers.py MODEL.gguf THREADS

Prints `figure NAME TOKENS_PER_SECOND` for each peer that is installed and `left out: …` for each that is not.
transformers: the GGUF's weights widened to f32, 8 × 64 tokens through all layers without the head, a hook on the last
layer's down projection; median of five. llama.cpp (xllamacpp): one prompt of 512 tokens, then 48 generated greedily, as
its own timings say; medians of three.
"""

import pathlib
import statistics
import sys
import time

PATH, THREADS = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2])


def transformers_prefill():
    import gguf  # noqa: F401  (transformers reads GGUF files with it)
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(THREADS)
    model = AutoModelForCausalLM.from_pretrained(PATH.parent, gguf_file=PATH.name, dtype=torch.float32).eval()
    seen = []
    hook = lambda module, args: seen.append(args[0].sum())  # noqa: E731
    model.model.layers[-1].mlp.down_proj.register_forward_pre_hook(hook)
    ids = torch.arange(512).reshape(8, 64) * 97 % model.config.vocab_size
    seconds = []
    with torch.no_grad():
        for _ in range(6):
            start = time.perf_counter()
            model.model(input_ids=ids, use_cache=False)
            seconds.append(time.perf_counter() - start)
    assert len(seen) == 6
    print(f"figure transformers_prefill {512 / statistics.median(seconds[1:]):.1f}")


def llama_cpp():
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.n_ctx, params.n_parallel = str(PATH), 1024, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    params.verbosity = 0
    server = xllamacpp.Server(params)
    prompt = [i * 97 % 40000 + 10 for i in range(512)]

    def rates(ids, new):
        request = dict(prompt=ids, n_predict=new, temperature=0, ignore_eos=True, cache_prompt=False)
        request["timings_per_token"] = True
        timings = server.handle_completions(request)["timings"]
        return timings["prompt_per_second"], timings["predicted_per_second"]

    rates(prompt[:8], 8)
    print(f"figure llama_cpp_prefill {statistics.median(rates(prompt, 1)[0] for _ in range(3)):.1f}")
    print(f"figure llama_cpp_generation {statistics.median(rates(prompt[:8], 48)[1] for _ in range(3)):.1f}")
    found = [line for line in xllamacpp.get_system_info().split("|") if line.strip().endswith("1")]
    print("llama.cpp was built for:", ", ".join(f.strip().split()[-3] for f in found))


for peer, needs in ((transformers_prefill, "transformers torch gguf"), (llama_cpp, "xllamacpp")):
    try:
        peer()
    except ImportError as error:
        print(f"left out: {peer.__name__} ({error}; pip install {needs})")
