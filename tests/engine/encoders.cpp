// Prints what llama.cpp needs for the encoders of an mmproj file on the CPU when it loads it, in bytes, without loading
// a weight: weights and working memory of each encoder together.
//   encoders MMPROJ

#include "clip.h"

#include <cstdio>

int main(int argc, char ** argv) {
    if (argc != 2) {
        return 2;
    }
    clip_context_params params = {};
    params.use_gpu         = false;
    params.flash_attn_type = CLIP_FLASH_ATTN_TYPE_AUTO;
    params.warmup          = true;
    params.no_alloc        = true;
    const clip_init_result found = clip_init(argv[1], params);
    for (const clip_ctx * context : { found.ctx_v, found.ctx_a }) {
        if (context) {
            size_t total = 0;
            for (const auto & [device, size] : clip_get_mem_usage(context)) {
                total += size;
            }
            printf("%zu\n", total);
        }
    }
    return found.ctx_v ? 0 : 3;
}
