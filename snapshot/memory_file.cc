#include "snapshot/memory_file.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/mapping.h"
#include "snapshot/page_hasher.h"
#include "snapshot/sequential_writer.h"

namespace cube::snapshot {
namespace {

constexpr uint64_t kPage = 4096;
constexpr char kDiffMagic[8] = {'C', 'U', 'B', 'E', 'D', 'I', 'F', 'F'};
constexpr uint32_t kDiffVersion = 1;
constexpr uint64_t kLeastDirect = 8 << 20;

struct DiffHeader {
  char magic[8];
  uint32_t version;
  uint32_t run_count;
  uint64_t index_xxh3;
  uint64_t reserved;
};
static_assert(sizeof(DiffHeader) == 32);
static_assert(sizeof(PlacedRun) == 24);

uint64_t RoundUp(uint64_t value) { return (value + kPage - 1) / kPage * kPage; }

Status PwriteAll(int fd, const uint8_t* data, size_t size, uint64_t offset) {
  while (size > 0) {
    ssize_t n = pwrite(fd, data, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0)
      return ErrnoError("writing memory at %llu", static_cast<unsigned long long>(offset));
    data += n;
    size -= static_cast<size_t>(n);
    offset += static_cast<uint64_t>(n);
  }
  return OkStatus();
}

Result<uint64_t> FileSize(int fd) {
  struct stat info;
  if (fstat(fd, &info) < 0) return ErrnoError("fstat");
  return static_cast<uint64_t>(info.st_size);
}

// Writes pages at their places, those of zeros as holes, and adds up the checksum.
class BaseWriter {
 public:
  explicit BaseWriter(int fd) : fd_(fd) {}
  Status Add(std::span<const uint8_t> pages, uint64_t offset) {
    for (uint64_t at = 0; at < pages.size();) {
      if (IsZero(pages.subspan(at, kPage))) {
        at += kPage;
        continue;
      }
      // At most a MiB a time, so that a page is hashed and written while it is in the cache.
      uint64_t end = at + kPage;
      while (end < pages.size() && end - at < (1 << 20) && !IsZero(pages.subspan(end, kPage))) {
        end += kPage;
      }
      hasher_.AddPages(pages.subspan(at, end - at), offset + at);
      CUBE_TRY(PwriteAll(fd_, pages.data() + at, end - at, offset + at));
      data_bytes_ += end - at;
      at = end;
    }
    return OkStatus();
  }
  Result<MemoryFileInfo> Finish(uint64_t image_bytes) {
    if (ftruncate(fd_, static_cast<off_t>(image_bytes)) < 0) {
      return ErrnoError("sizing memory to %llu bytes",
                        static_cast<unsigned long long>(image_bytes));
    }
    return MemoryFileInfo{image_bytes, data_bytes_, hasher_.Hex()};
  }

 private:
  int fd_;
  uint64_t data_bytes_ = 0;
  PageHasher hasher_;
};

}  // namespace

bool IsZero(std::span<const uint8_t> bytes) {
  // The first word decides most; memcmp of the bytes with themselves, shifted, the others.
  uint64_t first;
  memcpy(&first, bytes.data(), sizeof first);
  return first == 0 &&
         memcmp(bytes.data(), bytes.data() + sizeof first, bytes.size() - sizeof first) == 0;
}

Result<MemoryFileInfo> WriteBaseMemory(int fd, std::span<const std::span<const uint8_t>> image,
                                       std::span<const PageRun> runs) {
  BaseWriter writer(fd);
  uint64_t offset = 0;
  size_t next = 0;
  for (std::span<const uint8_t> region : image) {
    uint64_t end = offset + region.size();
    for (; next < runs.size() && runs[next].start < end; ++next) {
      uint64_t from = std::max(runs[next].start, offset);
      uint64_t to = std::min(runs[next].start + runs[next].size, end);
      CUBE_TRY(writer.Add(region.subspan(from - offset, to - from), from));
      if (runs[next].start + runs[next].size > end) break;  // the next region has the rest
    }
    offset = end;
  }
  return writer.Finish(offset);
}

Result<MemoryFileInfo> WriteBaseMemory(int fd, uint64_t image_bytes, const ReadImage& read,
                                       std::span<const PageRun> runs) {
  BaseWriter writer(fd);
  std::vector<uint8_t> piece(1 << 20);
  for (const PageRun& run : runs) {
    for (uint64_t at = 0; at < run.size; at += piece.size()) {
      std::span<uint8_t> here(piece.data(), std::min<uint64_t>(piece.size(), run.size - at));
      CUBE_TRY(read(run.start + at, here));
      CUBE_TRY(writer.Add(here, run.start + at));
    }
  }
  return writer.Finish(image_bytes);
}

Result<std::vector<PageRun>> FileDataRuns(int fd) {
  CUBE_ASSIGN(uint64_t size, FileSize(fd));
  std::vector<PageRun> runs;
  for (uint64_t at = 0; at < size;) {
    off_t data = lseek(fd, static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) break;
    // A file system without holes: all of it is data.
    uint64_t start = data < 0 ? at : static_cast<uint64_t>(data) / kPage * kPage;
    off_t hole = lseek(fd, static_cast<off_t>(start), SEEK_HOLE);
    uint64_t end = hole < 0 ? size : std::min(RoundUp(static_cast<uint64_t>(hole)), size);
    if (end <= start) return Errorf("a memory image changes while it is read");
    runs.push_back({start, end - start});
    at = end;
  }
  return runs;
}

std::vector<PageRun> MergeRuns(const std::vector<PageRun>& a, const std::vector<PageRun>& b) {
  std::vector<PageRun> all(a.size() + b.size());
  std::merge(a.begin(), a.end(), b.begin(), b.end(), all.begin(),
             [](const PageRun& x, const PageRun& y) { return x.start < y.start; });
  std::vector<PageRun> merged;
  for (const PageRun& run : all) {
    if (!merged.empty() && run.start <= merged.back().start + merged.back().size) {
      uint64_t end = std::max(merged.back().start + merged.back().size, run.start + run.size);
      merged.back().size = end - merged.back().start;
    } else {
      merged.push_back(run);
    }
  }
  return merged;
}

Result<std::string> HashBaseMemory(int fd) {
  CUBE_ASSIGN(uint64_t size, FileSize(fd));
  if (size == 0) return PageHasher().Hex();
  CUBE_ASSIGN(Mapping map, Mapping::Map(size, PROT_READ, MAP_PRIVATE, fd, 0, "a memory image"));
  CUBE_ASSIGN(std::vector<PageRun> runs, FileDataRuns(fd));
  PageHasher hasher;
  for (const PageRun& run : runs) {
    // Holes are zeros, and so are pages of data that hold nothing else.
    for (uint64_t at = run.start; at + kPage <= run.start + run.size; at += kPage) {
      std::span<const uint8_t> page = map.span().subspan(at, kPage);
      if (!IsZero(page)) hasher.AddPages(page, at);
    }
  }
  return hasher.Hex();
}

Result<MemoryFileInfo> WriteDiffMemory(int fd, const std::vector<PageRun>& runs,
                                       const std::vector<std::span<const uint8_t>>& pages) {
  MemoryFileInfo info;
  std::vector<PlacedRun> index;
  uint64_t data = RoundUp(sizeof(DiffHeader) + runs.size() * sizeof(PlacedRun));
  uint64_t short_bytes = 0;
  for (const PageRun& run : runs) {
    info.data_bytes += run.size;
    if (run.size < kLongRun) short_bytes += run.size;
  }
  uint64_t next_short = data;
  uint64_t next_long = data + short_bytes;
  for (const PageRun& run : runs) {
    uint64_t& next = run.size < kLongRun ? next_short : next_long;
    index.push_back({run.start, run.size, next});
    next += run.size;
  }
  DiffHeader header = {};
  memcpy(header.magic, kDiffMagic, sizeof kDiffMagic);
  header.version = kDiffVersion;
  header.run_count = static_cast<uint32_t>(runs.size());
  header.index_xxh3 = XXH3_64bits(index.data(), index.size() * sizeof(PlacedRun));
  std::vector<uint8_t> front(data);
  memcpy(front.data(), &header, sizeof header);
  if (!index.empty()) {
    memcpy(front.data() + sizeof header, index.data(), index.size() * sizeof(PlacedRun));
  }
  info.file_bytes = data + info.data_bytes;
  const bool direct = info.file_bytes - next_short >= kLeastDirect;
  CUBE_ASSIGN(auto writer,
              SequentialWriter::Create(fd, info.file_bytes, direct ? next_short : UINT64_MAX));
  CUBE_TRY(writer->Append(front));
  for (bool is_long : {false, true}) {
    for (std::span<const uint8_t> piece : pages) {
      if ((piece.size() >= kLongRun) == is_long) CUBE_TRY(writer->Append(piece));
    }
  }
  CUBE_ASSIGN(info.xxh3, writer->Finish());
  return info;
}

Result<std::vector<PlacedRun>> ReadDiffIndex(int fd, uint64_t image_bytes) {
  CUBE_ASSIGN(uint64_t file_bytes, FileSize(fd));
  DiffHeader header = {};
  if (pread(fd, &header, sizeof header, 0) != sizeof header ||
      memcmp(header.magic, kDiffMagic, sizeof kDiffMagic) != 0) {
    return Errorf("memory is not that of a diff");
  }
  if (header.version != kDiffVersion) {
    return Errorf("memory is of version %u, this is version %u", header.version, kDiffVersion);
  }
  if (header.run_count > kMaxRuns) {
    return Errorf("memory has %u runs, at most %zu are valid", header.run_count, kMaxRuns);
  }
  std::vector<PlacedRun> runs(header.run_count);
  size_t size = runs.size() * sizeof(PlacedRun);
  if (size > 0 && pread(fd, runs.data(), size, sizeof header) != static_cast<ssize_t>(size)) {
    return Errorf("memory's index of %zu bytes is cut off", size);
  }
  if (XXH3_64bits(runs.data(), size) != header.index_xxh3) {
    return Errorf("memory's index does not match its checksum");
  }
  uint64_t end = 0;
  for (const PlacedRun& run : runs) {
    bool aligned = run.start % kPage == 0 && run.size % kPage == 0 && run.file_offset % kPage == 0;
    bool inside = run.size != 0 && run.size <= image_bytes && run.start <= image_bytes - run.size &&
                  run.size <= file_bytes && run.file_offset <= file_bytes - run.size;
    if (!aligned || !inside || run.start < end) {
      return Errorf("memory's run of %llu bytes at %llu, in the file at %llu, is not valid",
                    static_cast<unsigned long long>(run.size),
                    static_cast<unsigned long long>(run.start),
                    static_cast<unsigned long long>(run.file_offset));
    }
    end = run.start + run.size;
  }
  return runs;
}

Result<std::string> HashDiffMemory(int fd) {
  CUBE_ASSIGN(uint64_t size, FileSize(fd));
  PageHasher hasher;
  if (size != 0) {
    CUBE_ASSIGN(Mapping map, Mapping::Map(size, PROT_READ, MAP_PRIVATE, fd, 0, "a memory diff"));
    hasher.Add(map.data(), map.size());
  }
  return hasher.Hex();
}

std::vector<PageRun> LimitRuns(std::vector<PageRun> runs, size_t limit) {
  if (runs.size() <= limit) return runs;
  std::vector<uint64_t> gaps;
  for (size_t i = 1; i < runs.size(); ++i) {
    gaps.push_back(runs[i].start - (runs[i - 1].start + runs[i - 1].size));
  }
  // All gaps up to that of the last one that must go; a few more than needed may share its size.
  size_t excess = runs.size() - limit;
  std::nth_element(gaps.begin(), gaps.begin() + static_cast<ptrdiff_t>(excess - 1), gaps.end());
  uint64_t largest = gaps[excess - 1];
  std::vector<PageRun> joined;
  for (const PageRun& run : runs) {
    if (!joined.empty() && run.start - (joined.back().start + joined.back().size) <= largest) {
      joined.back().size = run.start + run.size - joined.back().start;
    } else {
      joined.push_back(run);
    }
  }
  return joined;
}

}  // namespace cube::snapshot
