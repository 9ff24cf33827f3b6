/* A stand-in for NVIDIA's management library: an H100 with two MIG instances, and a GB10 that hides its memory.
 * Signatures and layouts are those of nvml.h; what is missing here is missing on real cards, too. */
#include <stdlib.h>
#include <string.h>

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6 };
typedef struct { int kind; } Device;
static Device devices[] = {{0}, {1}, {10}, {11}};

typedef struct {
    char legacy_id[16];
    unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
    char id[32];
} Pci;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } Memory;
typedef struct {
    unsigned multiprocessors, copy, decoder, encoder, jpeg, ofa, gpu_slices, compute_slices;
    unsigned long long memory_mb;
} Attributes;

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *error = getenv("NVML_STUB_ERROR");
    return error ? atoi(error) : OK;
}
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { return code == 18 ? "Driver/library version mismatch" : "Some error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned length) { strncpy(text, "580.95.05", length); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 2; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device) { *device = &devices[index]; return OK; }

int nvmlDeviceGetName(Device *device, char *text, unsigned length) {
    const char *name = device->kind == 0    ? "NVIDIA H100 80GB HBM3"
                       : device->kind == 1  ? "NVIDIA GB10"
                       : device->kind == 10 ? "NVIDIA H100 80GB HBM3 MIG 3g.40gb"
                                            : "NVIDIA H100 80GB HBM3 MIG 1g.10gb";
    strncpy(text, name, length);
    return OK;
}
int nvmlDeviceGetUUID(Device *device, char *text, unsigned length) {
    strncpy(text, device->kind >= 10 ? "MIG-1" : "GPU-1", length);
    return OK;
}
int nvmlDeviceGetPciInfo_v3(Device *device, Pci *pci) {
    memset(pci, 0, sizeof *pci);
    strcpy(pci->id, device->kind == 0 ? "00000000:00:09.0" : "0000000F:01:00.0");
    pci->pci_device_id = device->kind == 0 ? 0x233010DEu : 0x2E1210DEu;
    return device->kind < 10 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) {
    *major = device->kind == 1 ? 12 : 9;
    *minor = device->kind == 1 ? 1 : 0;
    return OK;
}
int nvmlDeviceGetMemoryInfo_v2(Device *device, Memory *memory) {
    if (device->kind == 1) return NOT_SUPPORTED;
    unsigned long long mib = 1024 * 1024;
    memory->total = (device->kind == 0 ? 81559 : device->kind == 10 ? 40448 : 9984) * mib;
    memory->reserved = 479 * mib;
    memory->used = 59 * mib;
    memory->free = memory->total - memory->reserved - memory->used;
    return OK;
}
int nvmlDeviceGetMemoryInfo(Device *device, void *memory) { (void)device; (void)memory; return NOT_SUPPORTED; }
int nvmlDeviceGetMemoryBusWidth(Device *device, unsigned *bits) {
    *bits = 5120;
    return device->kind == 0 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMaxClockInfo(Device *device, int type, unsigned *mhz) {
    *mhz = type == 2 ? 2619 : 1980;
    return device->kind == 0 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMaxPcieLinkGeneration(Device *device, unsigned *value) {
    *value = 5;
    return device->kind == 0 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMaxPcieLinkWidth(Device *device, unsigned *value) {
    *value = 16;
    return device->kind == 0 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending) {
    *current = *pending = 1;
    return device->kind == 0 ? OK : NOT_SUPPORTED;
}
int nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **instance) {
    if (device->kind != 0 || index > 1) return NOT_FOUND;
    *instance = &devices[2 + index];
    return OK;
}
int nvmlDeviceGetAttributes_v2(Device *device, Attributes *attributes) {
    memset(attributes, 0, sizeof *attributes);
    attributes->multiprocessors = device->kind == 10 ? 60 : 16;
    return OK;
}
