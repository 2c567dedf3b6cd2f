#ifndef CUBE_DEVICES_VIRTIO_SPEC_H_
#define CUBE_DEVICES_VIRTIO_SPEC_H_

#include <cstdint>

// What the virtio specification, version 1.2, lays down for every device; section numbers are its.
namespace cube::devices::virtio {

// Device status (2.1).
inline constexpr uint32_t kStatusAcknowledge = 1;
inline constexpr uint32_t kStatusDriver = 2;
inline constexpr uint32_t kStatusDriverOk = 4;
inline constexpr uint32_t kStatusFeaturesOk = 8;
inline constexpr uint32_t kStatusNeedsReset = 64;
inline constexpr uint32_t kStatusFailed = 128;

// Features of the transport and the rings (6).
inline constexpr uint64_t kFeatureIndirectDesc = 1ull << 28;
inline constexpr uint64_t kFeatureEventIdx = 1ull << 29;
inline constexpr uint64_t kFeatureVersion1 = 1ull << 32;

// Device types (5).
inline constexpr uint32_t kDeviceNet = 1;
inline constexpr uint32_t kDeviceBlock = 2;
inline constexpr uint32_t kDeviceEntropy = 4;
inline constexpr uint32_t kDeviceBalloon = 5;
inline constexpr uint32_t kDeviceVsock = 19;
inline constexpr uint32_t kDeviceFs = 26;

// Split virtqueues (2.7).
struct Descriptor {
  uint64_t address;
  uint32_t length;
  uint16_t flags;
  uint16_t next;
};
static_assert(sizeof(Descriptor) == 16);
inline constexpr uint16_t kDescriptorNext = 1;
inline constexpr uint16_t kDescriptorWrite = 2;
inline constexpr uint16_t kDescriptorIndirect = 4;

inline constexpr uint16_t kAvailNoInterrupt = 1;
inline constexpr uint16_t kUsedNoNotify = 1;

struct UsedElement {
  uint32_t id;
  uint32_t length;
};
static_assert(sizeof(UsedElement) == 8);

inline constexpr uint32_t kDescriptorAlignment = 16;
inline constexpr uint32_t kAvailAlignment = 2;
inline constexpr uint32_t kUsedAlignment = 4;
// Both rings begin with flags and idx; the driver's ends with used_event, the device's with
// avail_event.
inline constexpr uint64_t kRingHeaderSize = 4;
inline constexpr uint64_t kRingEventSize = 2;

inline constexpr uint32_t kMaxQueueSize = 32768;

// Registers of the MMIO transport (4.2.2), offsets in bytes.
inline constexpr uint32_t kMmioMagicValue = 0x000;
inline constexpr uint32_t kMmioVersion = 0x004;
inline constexpr uint32_t kMmioDeviceId = 0x008;
inline constexpr uint32_t kMmioVendorId = 0x00c;
inline constexpr uint32_t kMmioDeviceFeatures = 0x010;
inline constexpr uint32_t kMmioDeviceFeaturesSel = 0x014;
inline constexpr uint32_t kMmioDriverFeatures = 0x020;
inline constexpr uint32_t kMmioDriverFeaturesSel = 0x024;
inline constexpr uint32_t kMmioQueueSel = 0x030;
inline constexpr uint32_t kMmioQueueNumMax = 0x034;
inline constexpr uint32_t kMmioQueueNum = 0x038;
inline constexpr uint32_t kMmioQueueReady = 0x044;
inline constexpr uint32_t kMmioQueueNotify = 0x050;
inline constexpr uint32_t kMmioInterruptStatus = 0x060;
inline constexpr uint32_t kMmioInterruptAck = 0x064;
inline constexpr uint32_t kMmioStatus = 0x070;
inline constexpr uint32_t kMmioQueueDescLow = 0x080;
inline constexpr uint32_t kMmioQueueDescHigh = 0x084;
inline constexpr uint32_t kMmioQueueDriverLow = 0x090;
inline constexpr uint32_t kMmioQueueDriverHigh = 0x094;
inline constexpr uint32_t kMmioQueueDeviceLow = 0x0a0;
inline constexpr uint32_t kMmioQueueDeviceHigh = 0x0a4;
inline constexpr uint32_t kMmioShmLenLow = 0x0b0;
inline constexpr uint32_t kMmioShmBaseHigh = 0x0bc;
inline constexpr uint32_t kMmioConfigGeneration = 0x0fc;
inline constexpr uint32_t kMmioConfig = 0x100;

inline constexpr uint32_t kMmioMagic = 0x74726976;  // "virt"
inline constexpr uint32_t kMmioVersion2 = 2;
inline constexpr uint32_t kVendor = 0x45425543;  // "CUBE"

inline constexpr uint32_t kInterruptUsedBuffer = 1;
inline constexpr uint32_t kInterruptConfigChange = 2;

}  // namespace cube::devices::virtio

#endif  // CUBE_DEVICES_VIRTIO_SPEC_H_
