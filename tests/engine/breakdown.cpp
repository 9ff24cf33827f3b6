// Prints what llama.cpp allocates for a model on the CPU, in bytes per part, without loading a weight:
//   breakdown MODEL N_CTX N_UBATCH N_SEQ N_OUTPUTS KV_TYPE FLASH(on|off|auto) SWA_FULL KV_UNIFIED
// One line: model context compute output

#include "ggml-backend.h"
#include "ggml.h"
#include "llama.h"

#include "llama-ext.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

static void quiet(enum ggml_log_level level, const char * text, void *) {
    if (level == GGML_LOG_LEVEL_ERROR) {
        fputs(text, stderr);
    }
}

static ggml_type type_named(const char * name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const char * known = ggml_type_name((ggml_type) i);
        if (known && strcmp(known, name) == 0) {
            return (ggml_type) i;
        }
    }
    exit(2);
}

int main(int argc, char ** argv) {
    if (argc != 10) {
        return 2;
    }
    llama_log_set(quiet, nullptr);
    llama_backend_init();

    llama_model_params model_params = llama_model_default_params();
    model_params.no_alloc  = true;
    model_params.load_mode = LLAMA_LOAD_MODE_NONE;
    model_params.load_mtp  = false;
    llama_model * model    = llama_model_load_from_file(argv[1], model_params);
    if (!model) {
        return 3;
    }

    llama_context_params params = llama_context_default_params();
    params.n_ctx         = atoi(argv[2]);
    params.n_batch       = 2048;
    params.n_ubatch      = atoi(argv[3]);
    params.n_seq_max     = atoi(argv[4]);
    params.n_outputs_max = atoi(argv[5]);
    params.type_k        = type_named(argv[6]);
    params.type_v        = params.type_k;
    params.flash_attn_type = strcmp(argv[7], "auto") == 0 ? LLAMA_FLASH_ATTN_TYPE_AUTO :
                             strcmp(argv[7], "on") == 0   ? LLAMA_FLASH_ATTN_TYPE_ENABLED :
                                                            LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.swa_full   = atoi(argv[8]);
    params.kv_unified = atoi(argv[9]);
    llama_context * context = llama_init_from_model(model, params);
    if (!context) {
        return 4;
    }

    size_t weights = 0, cache = 0, compute = 0;
    for (const auto & [type, size] : llama_get_memory_breakdown(context)) {
        weights += size.model;
        cache   += size.context;
        compute += size.compute;
    }
    printf("%zu %zu %zu\n", weights, cache, compute);
    return 0;
}
