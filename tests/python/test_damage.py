"""Files from anywhere: what is damaged, cut short or foreign is one line that names the file, and nothing else happens."""

import json
import random
import unittest

import made
import numpy as np

import mlpeek
from mlpeek.checksum import hex_digest, xxh3_64


def everything(study):
    """Reads all that a study has."""
    study.verify()
    for hook in study.hooks:
        study.activations(hook=hook)[:]
    for fit in study.fits.values():
        fit.features(frame=False), fit.centre, fit.curve, fit.descriptions, fit.Z.dense()
    for sae in study.saes.values():
        sae.config, sae.direction(0)


class Checksum(unittest.TestCase):
    def test_it_is_xxh3_for_every_length(self):
        # Of bytes of a linear congruence, lengths 0 to 1199 and 5 MB: their checksums' checksum, by the reference library.
        data = np.empty(5_000_001, np.uint8)
        state = np.arange(len(data), dtype=np.uint64) * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        data[:] = state >> np.uint64(56)
        sums = [xxh3_64(data[:n].tobytes()) for n in [*range(1200), len(data)]]
        try:
            import xxhash
        except ImportError:
            pass
        else:
            self.assertEqual(sums[:1200], [xxhash.xxh3_64_intdigest(data[:n].tobytes()) for n in range(1200)])
        self.assertEqual(hex_digest(b"".join(n.to_bytes(8, "little") for n in sums)), "0181b203f139e946")


class Damage(unittest.TestCase):
    def refused(self, study, file, *words):
        """The study at a path is refused by a line that names `file`."""
        with self.assertRaises(mlpeek.MlpeekError) as caught:
            everything(mlpeek.open(study))
        said = str(caught.exception)
        for word in (str(file), *words):
            self.assertIn(word, said)
        self.assertNotIn("\n", said)

    def test_a_whole_study_is_read(self):
        everything(mlpeek.open(made.copy("whole")))

    def test_no_study(self):
        with self.assertRaisesRegex(mlpeek.MlpeekError, "is no study"):
            mlpeek.open(made.folder())
        with self.assertRaisesRegex(mlpeek.MlpeekError, "is no study"):
            mlpeek.open(made.folder() / "nowhere")

    def test_another_layout(self):
        path = made.copy("layout")
        manifest = json.loads((path / "study.json").read_text())
        (path / "study.json").write_text(json.dumps(manifest | {"schema": 2}))
        self.refused(path, "study.json", "study layout 2")

    def test_what_is_no_json(self):
        for name, text in (("cut", '{"schema": 1'), ("deep", "[" * 100_000), ("list", "[]"), ("bytes", "\udcff")):
            path = made.copy(f"json-{name}")
            (path / "study.json").write_bytes(text.encode("utf-8", "surrogateescape"))
            self.refused(path, "study.json")

    def test_members_of_other_types(self):
        whole = json.loads((made.study() / "study.json").read_text())
        path = made.copy("types")
        for key, value in {"hooks": [], "widths": [0, 64], "corpora": [1], "complete": 1, "rows": "9", "model": []}.items():
            (path / "study.json").write_text(json.dumps(whole | {key: value}))
            self.refused(path, "study.json")
        (path / "study.json").write_text(json.dumps(whole | {"hooks": [{"layer": 0, "site": "../../x"}] * 2}))
        self.refused(path, "study.json", "hook")

    def test_a_shard_that_is_cut_long_missing_or_foreign(self):
        folder = "cache/blocks.1.mlp.hook_post"
        for name, change, word in (
            ("cut", lambda b: b[:-1], "truncated"), ("long", lambda b: b + b"0", "too long"), ("head", lambda b: b[:40], "truncated"),
            ("foreign", lambda b: b"PK" + b[2:], "not a shard"), ("header", lambda b: b[:17] + b"\1" + b[18:], "header is damaged"),
            ("data", lambda b: b[:-1] + bytes([b[-1] ^ 1]), "data is damaged"),
        ):
            path = made.copy(f"shard-{name}")
            file = path / folder / "shard-000001.rows"
            file.write_bytes(change(file.read_bytes()))
            self.refused(path, file, word)
        path = made.copy("shard-missing")
        (path / folder / "shard-000000.rows").unlink()
        self.refused(path, path / folder / "shard-000000.rows", "missing")
        # A shard of another hook's first rows in the place of the second.
        path = made.copy("shard-twice")
        (path / folder / "shard-000001.rows").write_bytes((path / folder / "shard-000000.rows").read_bytes())
        self.refused(path, path / folder / "shard-000001.rows", "starts at row 0")

    def test_a_header_with_a_sound_checksum_and_impossible_sizes(self):
        path = made.copy("shard-sizes")
        file = path / "cache/blocks.0.mlp.hook_post/shard-000000.rows"
        data = bytearray(file.read_bytes())
        for at, value, word in ((24, 1 << 62, "truncated"), (16, 63, "63 values"), (32, 5, "starts at row 5"), (8, 2, "version 2")):
            head = bytearray(data[:64])
            head[at : at + (4 if at == 8 else 8)] = value.to_bytes(4 if at == 8 else 8, "little")
            head[56:] = xxh3_64(bytes(head[:56])).to_bytes(8, "little")
            file.write_bytes(bytes(head) + data[64:])
            self.refused(path, file, word)

    def test_tokens(self):
        path = made.copy("tokens-cut")
        file = path / "tokens.bin"
        data = file.read_bytes()
        file.write_bytes(data[:-3])
        self.refused(path, file, "rows are whole")
        # A flipped bit before a whole segment is no torn end.
        second = data.index(b"MLPKTOKS", 1)
        file.write_bytes(data[: second - 5] + bytes([data[second - 5] ^ 4]) + data[second - 4 :])
        self.refused(path, file, "damaged at byte 0")
        file.write_bytes(data[second:])
        self.refused(path, file, "samples are missing before it")
        file.unlink()
        self.refused(path, file)

    def test_a_torn_last_segment_counts_as_absent(self):
        path = made.copy("tokens-torn")
        file = path / "tokens.bin"
        rows = len(mlpeek.open(path).tokens)
        file.write_bytes(file.read_bytes() + file.read_bytes()[:200])
        self.assertEqual(len(mlpeek.open(path).tokens), rows)

    def test_samples(self):
        path = made.copy("samples")
        file = path / "tokens.samples-0.jsonl"
        data = file.read_bytes()
        for change in (data.replace(b"tide", b"tode", 1), data[:-4], data.replace(b'"samples"', b'"sample"'), b""):
            file.write_bytes(change)
            self.refused(path, file)

    def test_factors(self):
        whole = json.loads((made.study() / "fits/one/config.json").read_text())
        z, y = (whole["saved"][key]["file"] for key in "zy")
        for name, file, change, word in (
            ("z-bit", z, lambda b: b[:-1] + bytes([b[-1] ^ 1]), "checksum"), ("z-cut", z, lambda b: b[:-4], "truncated"),
            ("y-cut", y, lambda b: b[:-4], "truncated"), ("y-bit", y, lambda b: b[:-1] + bytes([b[-1] ^ 1]), "checksum"),
        ):
            path = made.copy(f"fit-{name}")
            file = path / "fits/one" / file
            file.write_bytes(change(file.read_bytes()))
            self.refused(path, file, word)
        path = made.copy("fit-config")
        config = path / "fits/one/config.json"
        for key, value in {"rows": 7, "features": 10**30, "neurons": 63, "z": {"file": "../two/" + z, "bytes": 1, "xxh3": ""}}.items():
            config.write_text(json.dumps(whole | {"saved": whole["saved"] | {key: value}}))
            self.refused(path, "fits/one/")

    def test_sparse_columns_that_contradict_themselves(self):
        from mlpeek.fits import _read_columns

        def write(offsets, indices, values, rows="4"):
            tensors = {"offsets": np.array(offsets, "<u8"), "indices": np.array(indices, "<u4"), "values": np.array(values, "<f4")}
            header, at, names = {"__metadata__": {"rows": rows}}, 0, {"<u8": "U64", "<u4": "U32", "<f4": "F32"}
            for name, array in tensors.items():
                dtype = names[array.dtype.newbyteorder("<").str]
                header[name] = {"dtype": dtype, "shape": [len(array)], "data_offsets": [at, at + array.nbytes]}
                at += array.nbytes
            head = json.dumps(header).encode()
            path = made.folder() / "columns.safetensors"
            path.write_bytes(len(head).to_bytes(8, "little") + head + b"".join(a.tobytes() for a in tensors.values()))
            return path

        good = ([0, 2, 3], [0, 3, 1], [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(_read_columns(write(*good), 4, 2)[0], [[1, 0], [0, 3], [0, 0], [2, 0]])
        for bad in (
            ([0, 3, 2], *good[1:]), ([1, 2, 3], *good[1:]), ([0, 2, 9], *good[1:]), ([0, 2, 3], [0, 4, 1], good[2]),
            ([0, 2, 3], [3, 0, 1], good[2]), ([0, 2, 3], [0, 0, 1], good[2]), (*good[:2], [1.0, np.nan, 3.0]), (*good[:2], [1.0, 2.0]),
            (*good, "5"),
        ):
            with self.assertRaisesRegex(mlpeek.MlpeekError, "columns.safetensors"):
                _read_columns(write(*bad), 4, 2)

    def test_safetensors_headers_that_lie(self):
        from mlpeek.disk import read_safetensors

        path = made.folder() / "lies.safetensors"
        for header in (
            {"a": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
            {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, -4]}},
            {"a": {"dtype": "object", "shape": [1], "data_offsets": [0, 8]}}, {"a": [1]}, {"a": {"dtype": "F32"}}, [],
            {"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, {"a": {"dtype": [], "shape": [1], "data_offsets": [0, 4]}},
            {"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}},
        ):
            head = json.dumps(header).encode()
            path.write_bytes(len(head).to_bytes(8, "little") + head + b"\0" * 8)
            with self.assertRaisesRegex(mlpeek.MlpeekError, "lies.safetensors", msg=str(header)):
                read_safetensors(path)
        for data in (b"", b"\xff" * 8, b"\xff" * 7 + b"\x7f" + b"{}"):
            path.write_bytes(data)
            with self.assertRaisesRegex(mlpeek.MlpeekError, "lies.safetensors"):
                read_safetensors(path)

    def test_names_that_lead_out_of_the_folder(self):
        path = made.copy("sae-name")
        about = path / "saes/t/about.json"
        value = json.loads(about.read_text())
        for name in ("../..", "/etc", "..", "a/b"):
            about.write_text(json.dumps(value | {"weights": [name, value["weights"][1]]}))
            self.refused(path, about, "is no folder of mlpeek's")

    def test_weights_and_notes(self):
        path = made.copy("sae-bit")
        weights = mlpeek.open(path).sae().path / "sae_weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"!")
        self.refused(path, weights, "checksum")
        path = made.copy("notes")
        for value in ("[]", '{"one": 3}', '{"one": {"names": {"x": "a"}}}', '{"one": {"details": {"1": {"tags": 3}}}}'):
            (path / "notes.json").write_text(value)
            self.refused(path, path / "notes.json")

    def test_random_damage_is_an_mlpeek_error_or_nothing(self):
        # Whatever a few changed bytes do, it is one exception of ours, or the values are unharmed.
        draw = random.Random(5)
        path = made.copy("random")
        files = sorted(p for p in path.rglob("*") if p.is_file() and p.name not in ("lock", "notes.lock", "session.json"))
        for _ in range(300):
            file = draw.choice(files)
            whole = file.read_bytes()
            data = bytearray(whole)
            for _ in range(draw.randrange(1, 4)):
                if data and draw.random() < 0.8:
                    data[draw.randrange(len(data))] = draw.randrange(256)
                else:
                    del data[draw.randrange(len(data) + 1) :]
            file.write_bytes(bytes(data))
            try:
                everything(mlpeek.open(path))
            except mlpeek.MlpeekError as problem:
                self.assertNotIn("\n", str(problem))
            file.write_bytes(whole)
        everything(mlpeek.open(path))


if __name__ == "__main__":
    unittest.main()
