#include "templates/testing/tar_writer.h"

#include <zlib.h>

#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/result.h"
#include "templates/digest.h"

namespace cube::templates::testing {
namespace {

constexpr size_t kBlock = 512;

// "LENGTH key=value\n", where LENGTH is that of all of it.
std::string PaxRecord(const std::string& key, const std::string& value) {
  const std::string rest = " " + key + "=" + value + "\n";
  size_t length = rest.size();
  while (std::to_string(length).size() + rest.size() != length) {
    length = std::to_string(length).size() + rest.size();
  }
  return std::to_string(length) + rest;
}

// Of a number that does not fit, base-256 (GNU).
void PutNumber(char* field, size_t size, uint64_t number) {
  const std::string octal =
      Format("%0*llo", static_cast<int>(size - 1), static_cast<unsigned long long>(number));
  if (octal.size() < size) {
    memcpy(field, octal.c_str(), octal.size());
    return;
  }
  for (size_t i = size; i-- > 0; number >>= 8) field[i] = static_cast<char>(number & 0xff);
  field[0] = static_cast<char>(0x80);
}

std::string ConfigJson(const std::map<int, std::string>& layers, const std::string& config) {
  std::string ids;
  for (const auto& [number, bytes] : layers) {
    ids += (ids.empty() ? "\"sha256:" : ",\"sha256:") + Sha256Of(bytes) + "\"";
  }
  return "{\"os\":\"linux\",\"architecture\":\"amd64\",\"config\":" + config +
         ",\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[" + ids + "]}}";
}

}  // namespace

void TarWriter::AddHeader(const TarEntry& entry, uint64_t size) {
  char block[kBlock] = {};
  memcpy(block, entry.path.data(), std::min<size_t>(entry.path.size(), 100));
  PutNumber(block + 100, 8, entry.mode);
  PutNumber(block + 108, 8, entry.uid);
  PutNumber(block + 116, 8, entry.gid);
  PutNumber(block + 124, 12, size);
  PutNumber(block + 136, 12, static_cast<uint64_t>(entry.time));
  block[156] = entry.type;
  memcpy(block + 157, entry.target.data(), std::min<size_t>(entry.target.size(), 100));
  memcpy(block + 257, "ustar\00000", 8);
  PutNumber(block + 329, 8, entry.major);
  PutNumber(block + 337, 8, entry.minor);
  memset(block + 148, ' ', 8);
  unsigned sum = 0;
  for (char c : block) sum += static_cast<unsigned char>(c);
  snprintf(block + 148, 8, "%06o", sum);
  bytes_.append(block, kBlock);
}

void TarWriter::AddContent(const std::string& content) {
  bytes_ += content;
  bytes_.append((kBlock - content.size() % kBlock) % kBlock, '\0');
}

TarWriter& TarWriter::Add(const TarEntry& entry) {
  std::string records;
  for (const auto& [key, value] : entry.pax) records += PaxRecord(key, value);
  if (entry.path.size() > 100) records += PaxRecord("path", entry.path);
  if (!records.empty()) {
    AddHeader({.path = "PaxHeaders/x", .type = 'x'}, records.size());
    AddContent(records);
  }
  AddHeader(entry, entry.content.size());
  AddContent(entry.content);
  return *this;
}

TarWriter& TarWriter::Folder(const std::string& path, unsigned mode) {
  return Add({.path = path + "/", .type = '5', .mode = mode});
}

TarWriter& TarWriter::File(const std::string& path, const std::string& content, unsigned mode) {
  return Add({.path = path, .content = content, .mode = mode});
}

TarWriter& TarWriter::Link(const std::string& path, const std::string& target) {
  return Add({.path = path, .type = '2', .target = target, .mode = 0777});
}

TarWriter& TarWriter::HardLink(const std::string& path, const std::string& target) {
  return Add({.path = path, .type = '1', .target = target});
}

std::string TarWriter::Finish() const { return bytes_ + std::string(2 * kBlock, '\0'); }

std::string Gzip(const std::string& bytes) {
  z_stream stream = {};
  deflateInit2(&stream, Z_BEST_SPEED, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY);
  std::string out(deflateBound(&stream, bytes.size()) + 64, '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream.avail_in = static_cast<uInt>(bytes.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  deflate(&stream, Z_FINISH);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Sha256Of(const std::string& bytes) {
  Sha256 sum;
  sum.Add(bytes);
  return sum.Finish();
}

void WriteFile(const std::string& path, const std::string& content) {
  std::filesystem::create_directories(std::filesystem::path(path).parent_path());
  std::ofstream(path, std::ios::binary) << content;
}

void WriteOciLayout(const std::string& path, const std::map<int, std::string>& layers,
                    const std::string& config, bool compress) {
  auto blob = [&](const std::string& bytes, const std::string& type) {
    const std::string digits = Sha256Of(bytes);
    WriteFile(path + "/blobs/sha256/" + digits, bytes);
    return "{\"mediaType\":\"" + type + "\",\"digest\":\"sha256:" + digits +
           "\",\"size\":" + std::to_string(bytes.size());
  };
  std::string descriptors;
  for (const auto& [number, bytes] : layers) {
    descriptors +=
        (descriptors.empty() ? "" : ",") +
        blob(compress ? Gzip(bytes) : bytes,
             std::string("application/vnd.oci.image.layer.v1.tar") + (compress ? "+gzip" : "")) +
        "}";
  }
  const std::string configuration =
      blob(ConfigJson(layers, config), "application/vnd.oci.image.config.v1+json") + "}";
  const std::string manifest = blob(
      "{\"schemaVersion\":2,\"config\":" + configuration + ",\"layers\":[" + descriptors + "]}",
      "application/vnd.oci.image.manifest.v1+json");
  WriteFile(path + "/oci-layout", "{\"imageLayoutVersion\":\"1.0.0\"}");
  WriteFile(path + "/index.json",
            "{\"schemaVersion\":2,\"manifests\":[" + manifest +
                ",\"annotations\":{\"org.opencontainers.image.ref.name\":\"latest\"}}]}");
}

std::string DockerArchive(const std::map<int, std::string>& layers, const std::string& config,
                          const std::string& tag) {
  TarWriter tar;
  std::string names;
  for (const auto& [number, bytes] : layers) {
    const std::string name = "layer" + std::to_string(number) + "/layer.tar";
    tar.File(name, bytes);
    names += (names.empty() ? "\"" : ",\"") + name + "\"";
  }
  tar.File("config.json", ConfigJson(layers, config));
  tar.File("manifest.json", "[{\"Config\":\"config.json\",\"RepoTags\":[\"" + tag +
                                "\"],\"Layers\":[" + names + "]}]");
  return tar.Finish();
}

}  // namespace cube::templates::testing
