#include "snapshot/state_file.h"

#include <xxhash.h>

#include <cstring>

#include "base/state_io.h"

namespace cube::snapshot {
namespace {

constexpr char kMagic[8] = {'C', 'U', 'B', 'E', 'S', 'T', 'A', 'T'};
constexpr uint32_t kVersion = 1;

struct FileHeader {
  char magic[8];
  uint32_t version;
  uint32_t section_count;
};

struct SectionHeader {
  uint32_t tag;
  uint32_t number;
  uint64_t xxh3;
};

const char* TagName(uint32_t tag) {
  switch (static_cast<SectionTag>(tag)) {
    case SectionTag::kVm:
      return "vm";
    case SectionTag::kVcpu:
      return "vcpu";
    case SectionTag::kSerial:
      return "serial";
    case SectionTag::kDevice:
      return "device";
  }
  return nullptr;
}

}  // namespace

std::vector<uint8_t> EncodeState(const std::vector<Section>& sections) {
  StateWriter writer;
  FileHeader header = {};
  memcpy(header.magic, kMagic, sizeof kMagic);
  header.version = kVersion;
  header.section_count = static_cast<uint32_t>(sections.size());
  writer.Put(header);
  for (const Section& section : sections) {
    writer.Put(SectionHeader{static_cast<uint32_t>(section.tag), section.number,
                             XXH3_64bits(section.bytes.data(), section.bytes.size())});
    writer.PutBytes(section.bytes);
  }
  return writer.Take();
}

Result<std::vector<Section>> DecodeState(std::span<const uint8_t> bytes) {
  StateReader reader(bytes, "state");
  FileHeader header;
  CUBE_TRY(reader.Get(&header));
  if (memcmp(header.magic, kMagic, sizeof kMagic) != 0) return Errorf("state is not a state file");
  if (header.version != kVersion) {
    return Errorf("state is of version %u, this is version %u", header.version, kVersion);
  }
  if (header.section_count > kMaxSections) {
    return Errorf("state has %u sections, at most %zu are valid", header.section_count,
                  kMaxSections);
  }
  std::vector<Section> sections;
  for (uint32_t i = 0; i < header.section_count; ++i) {
    SectionHeader section;
    CUBE_TRY(reader.Get(&section));
    const char* name = TagName(section.tag);
    if (name == nullptr)
      return Errorf("section %u of state has the unknown tag %u", i, section.tag);
    CUBE_ASSIGN(std::span<const uint8_t> content, reader.GetBytes(kMaxStateFile));
    if (XXH3_64bits(content.data(), content.size()) != section.xxh3) {
      return Errorf("section %s %u of state does not match its checksum", name, section.number);
    }
    sections.push_back(
        {static_cast<SectionTag>(section.tag), section.number, {content.begin(), content.end()}});
  }
  CUBE_TRY(reader.End());
  return sections;
}

Result<const Section*> FindSection(const std::vector<Section>& sections, SectionTag tag,
                                   uint32_t number) {
  for (const Section& section : sections) {
    if (section.tag == tag && section.number == number) return &section;
  }
  return Errorf("state has no section %s %u", TagName(static_cast<uint32_t>(tag)), number);
}

}  // namespace cube::snapshot
