#include "guestkernel/agent/envd/gunzip.h"

namespace cube::agent::envd {
namespace {

constexpr int kGzip = 16;  // zlib.h: added to the window's size, 2^15, it expects gzip's header

}  // namespace

std::unique_ptr<Gunzip> Gunzip::Create(std::span<char> scratch) {
  std::unique_ptr<Gunzip> gunzip(new Gunzip(scratch));
  if (inflateInit2(&gunzip->stream_, 15 + kGzip) != Z_OK) return nullptr;
  gunzip->initialized_ = true;
  return gunzip;
}

Gunzip::~Gunzip() {
  if (initialized_) inflateEnd(&stream_);
}

Status Gunzip::Add(std::string_view bytes, const Sink& sink) {
  stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
  stream_.avail_in = static_cast<uInt>(bytes.size());
  bool more = false;  // there may be more to come of what has been taken
  while (stream_.avail_in > 0 || more) {
    if (at_end_) {
      if (inflateReset(&stream_) != Z_OK) return Error("gzip: another member cannot be begun");
      at_end_ = false;
    }
    stream_.next_out = reinterpret_cast<Bytef*>(scratch_.data());
    stream_.avail_out = static_cast<uInt>(scratch_.size());
    const int result = inflate(&stream_, Z_NO_FLUSH);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) {
      return Errorf("the body is not gzip: %s", stream_.msg != nullptr ? stream_.msg : "no memory");
    }
    const size_t made = scratch_.size() - stream_.avail_out;
    if (made > 0) CUBE_TRY(sink({scratch_.data(), made}));
    at_end_ = result == Z_STREAM_END;
    more = !at_end_ && stream_.avail_out == 0;
    if (result == Z_BUF_ERROR && made == 0) break;  // it needs more to go on
  }
  return OkStatus();
}

}  // namespace cube::agent::envd
