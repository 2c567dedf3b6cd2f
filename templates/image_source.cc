#include "templates/image_source.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cerrno>
#include <utility>

#include "base/byte_io.h"
#include "templates/digest.h"
#include "templates/image_config.h"

namespace cube::templates {
namespace {

namespace json = boost::json;

constexpr int kMaxIndexes = 4;  // one in the other
constexpr size_t kMaxImages = 1000;
constexpr const char* kRefName = "org.opencontainers.image.ref.name";
constexpr const char* kContainerdName = "io.containerd.image.name";

constexpr std::string_view kIndexTypes[] = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json"};
constexpr std::string_view kManifestTypes[] = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json"};
constexpr std::string_view kLayerTypes[] = {
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
    "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd"};

template <size_t N>
bool IsOneOf(const std::string& type, const std::string_view (&types)[N]) {
  return std::find(std::begin(types), std::end(types), type) != std::end(types);
}

Result<std::string> BlobPath(const std::string& digest) {
  CUBE_ASSIGN(std::string digits, ParseDigest(digest));
  return "blobs/sha256/" + digits;
}

// Names as users give them: "name" for "docker.io/library/name:latest" is not tried.
bool HasName(const json::object& descriptor, const std::string& name, std::string* found) {
  const json::value* annotations = descriptor.if_contains("annotations");
  if (annotations == nullptr || !annotations->is_object()) return false;
  for (const char* key : {kRefName, kContainerdName}) {
    auto value = StringOf(annotations->get_object(), key);
    if (!value.ok() || value->empty()) continue;
    if (found->empty()) *found = *value;
    if (*value == name) return true;
  }
  return false;
}

// Unless it says that it is for another machine; an attestation says "unknown".
bool IsForThisMachine(const json::object& descriptor) {
  const json::value* platform = descriptor.if_contains("platform");
  if (platform == nullptr || !platform->is_object()) return true;
  auto system = StringOf(platform->get_object(), "os");
  auto machine = StringOf(platform->get_object(), "architecture");
  return system.ok() && machine.ok() && (system->empty() || *system == "linux") &&
         (machine->empty() || *machine == "amd64");
}

Result<std::string> ReadAll(int fd, const std::string& path, size_t limit) {
  CUBE_ASSIGN(uint64_t size, RegularFileSize(fd, path.c_str()));
  if (size > limit) {
    return Errorf("%s has %llu bytes, at most %zu are read", path.c_str(),
                  static_cast<unsigned long long>(size), limit);
  }
  std::string text(size, '\0');
  CUBE_TRY(
      ReadExactAt(fd, {reinterpret_cast<uint8_t*>(text.data()), text.size()}, 0, path.c_str()));
  return text;
}

std::string Listed(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) {
    if (text.size() > 200) return text + ", ...";
    text += (text.empty() ? "" : ", ") + name.substr(0, 80);
  }
  return text;
}

Error Ambiguous(const std::string& name, const std::vector<std::string>& names) {
  if (name.empty()) {
    return Errorf("there are %zu images, name one of them: %s", names.size(),
                  Listed(names).c_str());
  }
  return Errorf("there is no image \"%.100s\", only %s", name.c_str(),
                names.empty() ? "nameless ones" : Listed(names).c_str());
}

}  // namespace

Result<ImageSource> ImageSource::Open(Tree folder, const std::string& name) {
  ImageSource source(std::move(folder));
  auto layout = source.folder_.OpenFileForReading("index.json");
  // Newer docker writes both, and the index has the digests of everything.
  Status opened = layout.ok() ? source.OpenOci(name) : source.OpenDocker(name);
  if (!opened.ok()) return opened.error();
  return source;
}

Result<std::string> ImageSource::ReadJson(const std::string& path) const {
  CUBE_ASSIGN(UniqueFd file, folder_.OpenFileForReading(path));
  return ReadAll(file.get(), path, kMaxJson);
}

Result<std::string> ImageSource::ReadBlob(const std::string& digest) const {
  CUBE_ASSIGN(std::string path, BlobPath(digest));
  CUBE_ASSIGN(std::string text, ReadJson(path));
  Sha256 sum;
  sum.Add(text);
  if ("sha256:" + sum.Finish() != digest) {
    return Errorf("%s does not have its digest", path.c_str());
  }
  return text;
}

Status ImageSource::OpenOci(const std::string& name) {
  CUBE_ASSIGN(std::string text, ReadJson("index.json"));
  return OpenIndex(text, name, 0);
}

Status ImageSource::OpenIndex(const std::string& text, const std::string& name, int depth) {
  if (depth == kMaxIndexes) return Errorf("indexes are more than %d deep", kMaxIndexes);
  CUBE_ASSIGN(json::object index, ParseObject(text));
  const json::value* manifests = index.if_contains("manifests");
  if (manifests == nullptr || !manifests->is_array()) return Errorf("an index without manifests");
  if (manifests->get_array().size() > kMaxImages) {
    return Errorf("an index of %zu manifests, at most %zu are possible",
                  manifests->get_array().size(), kMaxImages);
  }
  std::vector<const json::object*> candidates;
  std::vector<std::string> names;
  for (const json::value& each : manifests->get_array()) {
    if (!each.is_object()) return Errorf("an index with a manifest that is not an object");
    if (!IsForThisMachine(each.get_object())) continue;
    std::string found;
    bool named = HasName(each.get_object(), name, &found);
    names.push_back(found.empty() ? "a nameless one" : found);
    if (name.empty() || named) candidates.push_back(&each.get_object());
  }
  if (names.empty()) return Errorf("an index without an image for linux/amd64");
  if (candidates.size() != 1) return Ambiguous(name, names);
  CUBE_ASSIGN(std::string digest, StringOf(*candidates[0], "digest"));
  CUBE_ASSIGN(std::string type, StringOf(*candidates[0], "mediaType"));
  CUBE_ASSIGN(std::string inner, ReadBlob(digest));
  // Below a name, names mean nothing any more.
  if (IsOneOf(type, kIndexTypes)) return OpenIndex(inner, "", depth + 1);
  if (!type.empty() && !IsOneOf(type, kManifestTypes)) {
    return Errorf("a manifest of the unknown type \"%.100s\"", type.c_str());
  }
  id_ = digest;
  return OpenManifest(inner);
}

Status ImageSource::OpenManifest(const std::string& text) {
  CUBE_ASSIGN(json::object manifest, ParseObject(text));
  const json::value* config = manifest.if_contains("config");
  const json::value* layers = manifest.if_contains("layers");
  if (config == nullptr || !config->is_object() || layers == nullptr || !layers->is_array()) {
    return Errorf("a manifest without a configuration or layers");
  }
  if (layers->get_array().size() > ImageConfig::kMaxLayers) {
    return Errorf("a manifest of %zu layers, at most %zu are possible", layers->get_array().size(),
                  ImageConfig::kMaxLayers);
  }
  CUBE_ASSIGN(std::string digest, StringOf(config->get_object(), "digest"));
  CUBE_ASSIGN(std::string config_text, ReadBlob(digest));
  CUBE_ASSIGN(ImageConfig parsed, ImageConfig::Parse(config_text));
  defaults_ = std::move(parsed.defaults);
  for (const json::value& each : layers->get_array()) {
    if (!each.is_object()) return Errorf("a manifest with a layer that is not an object");
    CUBE_ASSIGN(std::string type, StringOf(each.get_object(), "mediaType"));
    if (!IsOneOf(type, kLayerTypes)) {
      return Errorf("a layer of the unknown type \"%.100s\"", type.c_str());
    }
    Layer layer;
    CUBE_ASSIGN(layer.digest, StringOf(each.get_object(), "digest"));
    CUBE_ASSIGN(layer.path, BlobPath(layer.digest));
    layers_.push_back(std::move(layer));
  }
  return OkStatus();
}

Status ImageSource::OpenDocker(const std::string& name) {
  auto text = ReadJson("manifest.json");
  if (!text.ok()) {
    return Errorf(
        "there is neither an index.json nor a manifest.json: neither an OCI layout nor "
        "what 'docker save' writes");
  }
  CUBE_ASSIGN(json::array images, ParseArray(*text));
  if (images.size() > kMaxImages) return Errorf("manifest.json has %zu images", images.size());
  std::vector<const json::object*> candidates;
  std::vector<std::string> names;
  for (const json::value& each : images) {
    if (!each.is_object()) return Errorf("manifest.json has an image that is not an object");
    CUBE_ASSIGN(std::vector<std::string> tags, StringsOf(each.get_object(), "RepoTags", 1000));
    names.push_back(tags.empty() ? "a nameless one" : tags[0]);
    if (name.empty() || std::find(tags.begin(), tags.end(), name) != tags.end()) {
      candidates.push_back(&each.get_object());
    }
  }
  if (candidates.size() != 1) return Ambiguous(name, names);
  CUBE_ASSIGN(std::string config_path, StringOf(*candidates[0], "Config"));
  CUBE_ASSIGN(std::string config_text, ReadJson(config_path));
  CUBE_ASSIGN(ImageConfig config, ImageConfig::Parse(config_text));
  CUBE_ASSIGN(std::vector<std::string> layers,
              StringsOf(*candidates[0], "Layers", ImageConfig::kMaxLayers));
  if (layers.size() != config.diff_ids.size()) {
    return Errorf("manifest.json has %zu layers, the configuration %zu", layers.size(),
                  config.diff_ids.size());
  }
  for (size_t i = 0; i < layers.size(); ++i) {
    CUBE_TRY(ParseDigest(config.diff_ids[i]));
    layers_.push_back({layers[i], config.diff_ids[i], true});
  }
  // The configuration names its layers by their digests.
  Sha256 sum;
  sum.Add(config_text);
  id_ = "sha256:" + sum.Finish();
  defaults_ = std::move(config.defaults);
  return OkStatus();
}

Status ImageSource::Unpack(const Tree& into, UnpackBudget* budget) const {
  for (const Layer& layer : layers_) {
    CUBE_ASSIGN(UniqueFd file, folder_.OpenFileForReading(layer.path));
    std::string digest;
    if (layer.unpacked) {
      // Beside what is in the files there are headers, and what is deleted again.
      constexpr uint64_t kFactor = 2;
      CUBE_ASSIGN(digest, UncompressedSha256(file.get(), layer.path,
                                             kFactor * UnpackBudget::kDefaultBytes));
    } else {
      CUBE_ASSIGN(digest, FileSha256(file.get(), layer.path));
    }
    if ("sha256:" + digest != layer.digest) {
      return Errorf("layer %s does not have its digest: it is sha256:%s, not %s",
                    layer.path.c_str(), digest.c_str(), layer.digest.c_str());
    }
    CUBE_TRY(UnpackArchive(file.get(), "layer " + layer.path, ArchiveKind::kLayer, into, budget));
  }
  return OkStatus();
}

}  // namespace cube::templates
