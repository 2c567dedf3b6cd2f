#include "snapshot/manifest.h"

#include <fcntl.h>
#include <sys/random.h>
#include <xxhash.h>

#include <algorithm>
#include <boost/json.hpp>

#include "base/byte_io.h"
#include "base/json_writer.h"
#include "base/unique_fd.h"
#include "snapshot/json_fields.h"

namespace cube::snapshot {
namespace {

namespace json = boost::json;

constexpr size_t kIdDigits = 32;
constexpr int kMaxDepth = 8;

// How the checksum of everything before it stands in the file.
constexpr const char* kChecksumKey = ",\"xxh3\":\"";

std::string Checksum(std::string_view text) {
  return Format("%016llx", static_cast<unsigned long long>(XXH3_64bits(text.data(), text.size())));
}

bool IsHex(std::string_view text, size_t digits) {
  return text.size() == digits &&
         text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}

}  // namespace

Result<std::string> NewSnapshotId() {
  uint8_t bytes[kIdDigits / 2];
  if (getrandom(bytes, sizeof bytes, 0) != sizeof bytes) return ErrnoError("getrandom");
  std::string id;
  for (uint8_t byte : bytes) id += Format("%02x", byte);
  return id;
}

std::string Manifest::ToJson() const {
  JsonWriter writer;
  writer.BeginObject();
  writer.Key("version").Uint(kVersion);
  writer.Key("id").String(id);
  writer.Key("parent").String(parent);
  writer.Key("parent_path").String(parent_path);
  writer.Key("created").String(created);
  writer.Key("memory_bytes").Uint(memory_bytes);
  writer.Key("cpus").Uint(cpus);
  writer.Key("ring0").String(ring0);
  writer.Key("kernel").String(kernel);
  writer.Key("devices").BeginArray();
  for (const std::string& device : devices) writer.String(device);
  writer.EndArray();
  writer.Key("hardware");
  hardware.Write(&writer);
  if (!defaults.empty()) {
    writer.Key("defaults");
    defaults.Write(&writer);
  }
  writer.Key("state_bytes").Uint(state_bytes);
  writer.Key("state_xxh3").String(state_xxh3);
  writer.Key("cold").Bool(cold);
  writer.Key("memory_file_bytes").Uint(memory_file_bytes);
  writer.Key("memory_xxh3").String(memory_xxh3);
  // The text so far, without the brace that ends it, and then its own checksum.
  writer.EndObject();
  std::string text = writer.text();
  text.pop_back();
  return text + kChecksumKey + Checksum(text) + "\"}\n";
}

Result<Manifest> Manifest::Parse(std::string_view text) {
  if (text.size() > kMaxSize) {
    return Errorf("%zu bytes, at most %zu are valid", text.size(), kMaxSize);
  }
  json::parse_options options;
  options.max_depth = kMaxDepth;
  json::error_code failed;
  json::value value = json::parse({text.data(), text.size()}, failed, {}, options);
  if (failed) return Errorf("not JSON: %s", failed.message().c_str());
  if (!value.is_object()) return Errorf("not a JSON object");
  JsonFields fields(value.get_object());
  CUBE_ASSIGN(uint64_t version, fields.Number("version"));
  if (version != kVersion) {
    return Errorf("snapshot format version %llu, this is version %llu",
                  static_cast<unsigned long long>(version),
                  static_cast<unsigned long long>(kVersion));
  }
  CUBE_ASSIGN(std::string checksum, fields.String("xxh3"));
  size_t end = text.rfind(kChecksumKey);
  if (end == std::string_view::npos || Checksum(text.substr(0, end)) != checksum) {
    return Errorf("does not match its checksum");
  }
  Manifest manifest;
  CUBE_ASSIGN(manifest.id, fields.String("id"));
  CUBE_ASSIGN(manifest.parent, fields.String("parent"));
  CUBE_ASSIGN(manifest.parent_path, fields.String("parent_path"));
  CUBE_ASSIGN(manifest.created, fields.String("created"));
  CUBE_ASSIGN(manifest.memory_bytes, fields.Number("memory_bytes"));
  CUBE_ASSIGN(uint64_t cpus, fields.Number("cpus"));
  CUBE_ASSIGN(manifest.ring0, fields.String("ring0"));
  CUBE_ASSIGN(manifest.kernel, fields.String("kernel"));
  CUBE_ASSIGN(manifest.devices, fields.Strings("devices", 64));
  CUBE_ASSIGN(JsonFields hardware, fields.Object("hardware"));
  CUBE_ASSIGN(manifest.hardware, Hardware::Read(hardware));
  if (fields.Has("defaults")) {
    CUBE_ASSIGN(JsonFields defaults, fields.Object("defaults"));
    CUBE_ASSIGN(manifest.defaults, Defaults::Read(defaults));
  }
  if (manifest.hardware.DeviceNames() != manifest.devices) {
    return Errorf("\"devices\" and \"hardware\" do not name the same");
  }
  CUBE_ASSIGN(manifest.state_bytes, fields.Number("state_bytes"));
  CUBE_ASSIGN(manifest.state_xxh3, fields.String("state_xxh3"));
  CUBE_ASSIGN(manifest.cold, fields.Bool("cold"));
  CUBE_ASSIGN(manifest.memory_file_bytes, fields.Number("memory_file_bytes"));
  CUBE_ASSIGN(manifest.memory_xxh3, fields.String("memory_xxh3"));
  if (!IsHex(manifest.id, kIdDigits))
    return Errorf("\"id\" is not %zu hexadecimal digits", kIdDigits);
  if (!manifest.parent.empty() && !IsHex(manifest.parent, kIdDigits)) {
    return Errorf("\"parent\" is neither empty nor %zu hexadecimal digits", kIdDigits);
  }
  if (manifest.parent.empty() != manifest.parent_path.empty()) {
    return Errorf("\"parent\" and \"parent_path\" go together");
  }
  if (manifest.cold && !manifest.parent.empty()) return Errorf("a diff in a page store");
  if (!IsHex(manifest.state_xxh3, 16) || !IsHex(manifest.memory_xxh3, 32)) {
    return Errorf("a checksum is not hexadecimal of its length");
  }
  if (cpus == 0 || cpus > 255) return Errorf("%llu vCPUs", static_cast<unsigned long long>(cpus));
  manifest.cpus = static_cast<uint32_t>(cpus);
  return manifest;
}

Result<Manifest> Manifest::Load(const std::string& folder) {
  std::string path = folder + "/manifest.json";
  // Not blocked by a FIFO that somebody has put there.
  CUBE_ASSIGN(UniqueFd file, OpenFile(path, O_RDONLY | O_NONBLOCK));
  CUBE_ASSIGN(uint64_t size, RegularFileSize(file.get(), path.c_str()));
  std::vector<uint8_t> text(std::min<uint64_t>(size, kMaxSize + 1));
  CUBE_TRY(ReadExactAt(file.get(), text, 0, path.c_str()));
  auto manifest = Parse({reinterpret_cast<const char*>(text.data()), text.size()});
  if (!manifest.ok()) return Error(manifest.error()).Wrap(path);
  return manifest;
}

}  // namespace cube::snapshot
