//! The texts of `tcc explain CODE`: one paragraph for each code that an error can carry.

/// A code and what it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    pub code: &'static str,
    pub title: &'static str,
    pub text: &'static str,
}

/// The explanation of `code`, in any case.
pub fn explain(code: &str) -> Option<&'static Explanation> {
    EXPLANATIONS.iter().find(|e| e.code.eq_ignore_ascii_case(code))
}

/// All explanations, ascending by code.
pub const EXPLANATIONS: &[Explanation] = &[
    Explanation {
        code: "TCC-E0101",
        title: "the command line asks for something impossible",
        text: "An argument has a value that cannot be used, or arguments contradict each other. The help line says \
               which values are possible; `tcc COMMAND --help` has examples.",
    },
    Explanation {
        code: "TCC-E0102",
        title: "the target, CPU or feature is not known",
        text: "A target is `host`, the short name of an instruction set, or a full ELF triple. `tcc targets` lists every \
               target with its CPUs, features and kernels. Features every object of a target needs cannot be \
               removed.",
    },
    Explanation {
        code: "TCC-E0103",
        title: "a file cannot be read or written",
        text: "The operating system refused. Output is written under a temporary name beside its target and renamed \
               when it is whole, so nothing half-written is left.",
    },
    Explanation {
        code: "TCC-E0104",
        title: "a profile cannot be used",
        text: "A profile is what `tcc tune` writes: JSON with the rates of one machine's kernels and memories. It holds \
               for one target, and names nothing that this version of the target does not have.",
    },
    Explanation {
        code: "TCC-E0201",
        title: "a file cannot be read",
        text: "The operating system refused to open or read a file of the model, or the file became shorter while it \
               was read. Weights are memory-mapped: do not cut or rewrite a model's files while tcc runs. Replacing \
               a file by renaming another over it is safe.",
    },
    Explanation {
        code: "TCC-E0202",
        title: "the path is not a model",
        text: "A model is a folder with config.json and either model.safetensors or model.safetensors.index.json, or \
               the path of such an index, or the path of one .safetensors file with its config.json beside it.",
    },
    Explanation {
        code: "TCC-E0203",
        title: "the safetensors header is damaged",
        text: "A safetensors file begins with the length of its header as eight bytes, little-endian, and the header, \
               a JSON object of tensors; the data follows and ends where the last tensor ends. A file that was not \
               fully downloaded, or a text file that stands in for it, fails here.",
    },
    Explanation {
        code: "TCC-E0204",
        title: "a tensor's place in the file is impossible",
        text: "Each tensor states its type, its shape and the range of its bytes. The range must be ascending, lie \
               inside the file, be exactly as long as type and shape need, and begin where the tensor before it ends.",
    },
    Explanation {
        code: "TCC-E0205",
        title: "a tensor is stored twice",
        text: "Two entries of one header, or two shards, have the same name. Which of them is meant cannot be known.",
    },
    Explanation {
        code: "TCC-E0206",
        title: "a shard name is not acceptable, or its file is absent",
        text: "The index of a sharded model names the file of each tensor. The name must be a plain file name inside \
               the folder of the index; separators, '..', and absolute paths are refused, so that an index cannot \
               make tcc read other files.",
    },
    Explanation {
        code: "TCC-E0207",
        title: "a tensor is in another shard than the index says",
        text: "Index and shards do not belong together, for example because they were taken from two revisions.",
    },
    Explanation {
        code: "TCC-E0208",
        title: "a file is not valid JSON",
        text: "config.json, generation_config.json, tokenizer_config.json and the shard index are JSON objects. A key \
               that occurs twice in one object is accepted with a warning, and the last one counts; other deviations \
               are errors.",
    },
    Explanation {
        code: "TCC-E0209",
        title: "a configuration value is missing or out of bounds",
        text: "The message names the key, the value and what is allowed. Numbers may be spelled as integers or as \
               floats. Bounds are far above every published model; they exist so that damaged or hostile files \
               cannot cause overflows or enormous allocations.",
    },
    Explanation {
        code: "TCC-E0210",
        title: "a configuration names something that tcc does not know",
        text: "The message lists the known architectures, quantization methods, linear classes, rotary kinds or \
               activations. There is no fallback: a model computed with a similar rule gives plausible nonsense. The \
               architecture is the first of 'architectures'; 'model_type' is not used.",
    },
    Explanation {
        code: "TCC-E0211",
        title: "a tensor is missing",
        text: "The configuration implies a tensor that no file of the model holds. Often config.json is of another \
               model, or a shard was left out.",
    },
    Explanation {
        code: "TCC-E0212",
        title: "a tensor has an unexpected type or shape",
        text: "Packed weights are U8 with four rows to a byte, so an [n, k] linear is stored as [n/4, k], and n must \
               be a multiple of four; other weights are BF16, F16 or F32. A scale belongs to U8 weights, or to float \
               weights of an offline autobitlinear checkpoint.",
    },
    Explanation {
        code: "TCC-E0213",
        title: "packed weights hold the code 3",
        text: "Packed weights use two bits for each ternary value: 0, 1 and 2 stand for -1, 0 and 1. The fourth code \
               has no meaning, so its presence shows damaged data or another layout.",
    },
    Explanation {
        code: "TCC-E0214",
        title: "a tensor holds an impossible value",
        text: "Weights, norms and biases must be finite, scales positive and finite, and the values of an unpacked \
               ternary checkpoint -1, 0 or 1.",
    },
    Explanation {
        code: "TCC-E0215",
        title: "a linear has no scale",
        text: "config.json declares weights that were quantized offline, and these need '<linear>.weight_scale'. \
               Without it the result would be wrong by an unknown factor.",
    },
    Explanation {
        code: "TCC-E0216",
        title: "a tensor belongs to nothing",
        text: "The model holds a tensor that its architecture does not read: a bias or norm of another family, a \
               layer beyond num_hidden_layers, or a scale whose weights are not quantized. Ignoring it would compute \
               another model than the published one.",
    },
    Explanation {
        code: "TCC-E0217",
        title: "the weights are not ternary",
        text: "tcc recognizes ternary weights in five forms: packed, unpacked with a scale, masters of a quantized \
               model, and floats that already are a scale times -1, 0 or 1, per tensor, row or group. This linear is \
               none of them. '--dense keep' compiles such linears as they are stored, exactly, at their full size.",
    },
    Explanation {
        code: "TCC-E0218",
        title: "a tied head differs from the embedding",
        text: "tie_word_embeddings says that the head is the embedding table, but the model also stores a head with \
               other values. One of the two statements is wrong.",
    },
    Explanation {
        code: "TCC-E0219",
        title: "a weight could not be read again",
        text: "The checkpoint was valid when it was opened, but a tensor could not be read when it was needed. Do \
               not change a model's files while tcc runs.",
    },
    Explanation {
        code: "TCC-E0231",
        title: "the context is out of bounds",
        text: "--ctx sets the number of positions the caches hold. It may not exceed max_position_embeddings. Without \
               it tcc takes that limit, but at most 4096 positions, because caches cost memory.",
    },
    Explanation {
        code: "TCC-E0232",
        title: "the prefill size is out of bounds",
        text: "--prefill sets the token rows that are evaluated at once when a prompt is read, 1 to 4096. It changes \
               speed and memory, never results.",
    },
    Explanation {
        code: "TCC-E0233",
        title: "the cache type is not supported",
        text: "Keys and values of earlier positions are kept as f16 (the default), f32, or int8 (q8 in the IR).",
    },
    Explanation {
        code: "TCC-E0234",
        title: "the builder made a program that does not verify",
        text: "This is a bug in tcc, not in the model. Please report it with the model's config.json.",
    },
    Explanation {
        code: "TCC-E0235",
        title: "an int8 cache would be too large for its sums",
        text: "Over int8 caches attention sums codes in 32 bits, which 131072 positions and heads of 2048 elements \
               cannot overflow and more could. Take --kv f16 or f32, or a shorter context.",
    },
    Explanation {
        code: "TCC-E0301",
        title: "there is no such pass",
        text: "`tcc explain` lists the passes in the order in which they run.",
    },
    Explanation {
        code: "TCC-E0302",
        title: "a pass broke the program",
        text: "Every pass is followed by the verifier, which found something wrong. This is a bug in tcc; please \
               report it with the command line and the model's config.json.",
    },
    Explanation {
        code: "TCC-E0311",
        title: "no kernel fits",
        text: "No micro-kernel of the target can run with the enabled features on the encoding asked for. Leave out \
               --encoding, or enable a feature that the message lists. Scales in groups need an encoding whose blocks of \
               columns divide the group.",
    },
    Explanation {
        code: "TCC-E0312",
        title: "the reduction is too long",
        text: "Sums of ternary products are exact in 32 bits up to a length that depends on the kernel. The matrix \
               is longer than that for every kernel of the target.",
    },
    Explanation {
        code: "TCC-E0313",
        title: "no plan could be made",
        text: "The program holds a form of an op that no kernel computes, or the checker found two live buffers of \
               the arena on the same bytes. This is a bug in tcc; please report it.",
    },
    Explanation {
        code: "TCC-E0401",
        title: "no kernel could be generated",
        text: "The code generator has no code for a kernel of the plan on this target.",
    },
    Explanation {
        code: "TCC-E0402",
        title: "code generation failed",
        text: "This is a bug in tcc; please report it with the command line and the model's config.json.",
    },
    Explanation {
        code: "TCC-E0403",
        title: "the model has no program for this matrix unit",
        text: "The message names the op and what is missing. Products with scales per group, float activations and int8 caches, and machines whose cube and vector units are cores of their own, are not lowered.",
    },
    Explanation {
        code: "TCC-E0411",
        title: "the object could not be written",
        text: "The file system refused, or the object's layout is impossible. Nothing is left behind.",
    },
    Explanation {
        code: "TCC-E0412",
        title: "the weights are too large for an object",
        text: "More than 1.75 GiB in one section breaks the start-up code and libc of the program that links it: \
               their 32-bit references no longer reach across. Pass --weights file: the weights become \
               NAME.weights, which the program maps and hands to init.",
    },
    Explanation {
        code: "TCC-E0501",
        title: "the tokens cannot be evaluated",
        text: "A token id is outside the vocabulary, or there are more tokens than the context holds.",
    },
    Explanation {
        code: "TCC-E0502",
        title: "the compiled model returned a status",
        text: "The status is one of those in the generated header. TCC_E_CPU means that this processor lacks a \
               feature the code was compiled for, or that nobody said that the system granted it; TCC_E_CTX_FULL that the context is full; TCC_E_NONFINITE that an \
               activation overflowed, which a damaged checkpoint can cause.",
    },
    Explanation {
        code: "TCC-E0503",
        title: "an object cannot be loaded",
        text: "Only objects made by tcc for this machine's instruction set can be loaded into the running process.",
    },
    Explanation {
        code: "TCC-E0504",
        title: "an emulator is missing",
        text: "Code of another instruction set runs under a user-mode emulator, which \
               Debian ships in the package qemu-user.",
    },
    Explanation {
        code: "TCC-E0505",
        title: "emulated code ended with an error",
        text: "The executable returned a status of the generated header as its exit status, or the emulator stopped \
               it; what it said stands behind the colon.",
    },
    Explanation {
        code: "TCC-E0506",
        title: "text cannot be handled",
        text: "The model has no tokenizer.json or chat template, or they cannot be read. `tcc eval --ids` needs \
               neither.",
    },
    Explanation {
        code: "TCC-E0507",
        title: "the simulated machine stopped",
        text: "The program breaks a rule of the machine or of its queues. Programs that tcc made never should: please report it.",
    },
    Explanation {
        code: "TCC-E0508",
        title: "an object for a matrix unit cannot be used",
        text: "What `tcc compile -t ascend` writes is an ELF file of machine EM_NONE with a descriptor, a machine, programs and \
               weights. Each is checked against the others before anything runs, the weights against their SHA-256. \
               Compile the model again with this version of tcc.",
    },
    Explanation {
        code: "TCC-E0601",
        title: "a limit does not hold",
        text: "--ram or --stack of `tcc check` is smaller than what the compiled model needs. A shorter --ctx, a \
               smaller --prefill or fewer --threads need less RAM.",
    },
    Explanation {
        code: "TCC-E0602",
        title: "a comparison failed",
        text: "`tcc compare` found rows whose logits have different hashes, which is a bug in tcc; or a row that is \
               larger than --baseline FILE and --tolerance allow, or whose hash is another one than there, which a \
               changed model causes as well; or a row that --require-all wants and that could not run here or is \
               absent from the baseline. To accept the new numbers, write the file again with --json.",
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_ascending_and_found() {
        assert!(EXPLANATIONS.windows(2).all(|pair| pair[0].code < pair[1].code));
        assert_eq!(explain("tcc-e0213").map(|e| e.code), Some("TCC-E0213"));
        assert_eq!(explain("TCC-E9999"), None);
    }
}
