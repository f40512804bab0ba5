/* Stands in for NVIDIA's driver library in tests of what pynvml is asked: an A40 whose state is
 * taken from the environment. The functions are those that budgetrl/hardware.py calls. */
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NOT_SUPPORTED = 3, INSUFFICIENT_SIZE = 7 };
typedef unsigned long long bytes;
typedef struct { bytes total, free, used; } memory_v1;
typedef struct { unsigned version; bytes total, reserved, free, used; } memory_v2;
typedef struct { unsigned pid; bytes used; unsigned gpu_instance, compute_instance; } process;

static const bytes MIB = 1 << 20, RESERVED_MIB = 600;

static const char *text(const char *name, const char *otherwise) {
    const char *value = getenv(name);
    return value ? value : otherwise;
}
static int number(const char *name, const char *otherwise) { return atoi(text(name, otherwise)); }
static int copy(char *out, unsigned length, const char *value) {
    strncpy(out, value, length);
    return SUCCESS;
}
static bytes total(void) { return number("NVML_TOTAL_MIB", "46068") * MIB; }
static bytes used(void) { return number("NVML_USED_MIB", "3") * MIB; }

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int code) { return "stand-in"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return SUCCESS; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)1; return SUCCESS; }
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) { *handle = (void *)1; return SUCCESS; }
int nvmlDeviceGetName(void *gpu, char *out, unsigned length) { return copy(out, length, "NVIDIA A40"); }
int nvmlDeviceGetUUID(void *gpu, char *out, unsigned length) { return copy(out, length, "GPU-stand-in"); }
int nvmlSystemGetDriverVersion(char *out, unsigned length) {
    return copy(out, length, text("NVML_DRIVER", "580.95.05"));
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return SUCCESS; }
int nvmlDeviceGetCudaComputeCapability(void *gpu, int *major, int *minor) {
    *major = 8, *minor = 6;
    return SUCCESS;
}
int nvmlDeviceGetMigMode(void *gpu, unsigned *now, unsigned *pending) {
    if (!getenv("NVML_MIG")) return NOT_SUPPORTED;
    *now = *pending = number("NVML_MIG", "0");
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo(void *gpu, memory_v1 *memory) {
    memory->total = total();
    memory->used = used() + RESERVED_MIB * MIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetMemoryInfo_v2(void *gpu, memory_v2 *memory) {
    memory->total = total(), memory->reserved = RESERVED_MIB * MIB, memory->used = used();
    memory->free = memory->total - memory->reserved - memory->used;
    return SUCCESS;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *gpu, unsigned *count, process *found) {
    unsigned running = number("NVML_PROCESSES", "0");
    if (*count < running) {
        *count = running;
        return INSUFFICIENT_SIZE;
    }
    *count = running;
    for (unsigned i = 0; i < running; i++) found[i] = (process){4000 + i, MIB, ~0u, ~0u};
    return SUCCESS;
}
