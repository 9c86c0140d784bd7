#include "agentd/toml_reader.h"

namespace certgate::agentd {
namespace {

// How toml++ 3.3 reads: it keeps the place of each character, in a way that makes the processor
// wait for what it has just stored, once a byte. That is a third of its time. Of text that is ASCII
// alone the same characters at the same places can be had for less; all else it reads itself.
#if TOML_LIB_MAJOR == 3 && TOML_LIB_MINOR == 3
class AsciiReader final : public toml::impl::utf8_reader_interface {
 public:
  explicit AsciiReader(std::string_view text) : text_(text) {}

  const toml::source_path_ptr& source_path() const noexcept override { return no_path_; }
  bool peek_eof() const noexcept override { return at_ == text_.size(); }
  const toml::impl::utf8_codepoint* read_next() override {
    if (at_ == text_.size()) return nullptr;
    toml::impl::utf8_codepoint& out = last_[at_ % std::size(last_)];
    const char byte = text_[at_++];
    out.value = static_cast<unsigned char>(byte);
    out.bytes[0] = byte;
    out.count = 1;
    out.position = {line_, column_++};
    if (byte == '\n') {
      ++line_;
      column_ = 1;
    }
    return &out;
  }

 private:
  const std::string_view text_;
  size_t at_ = 0;
  toml::source_index line_ = 1, column_ = 1;
  toml::impl::utf8_codepoint last_[32] = {};  // its own lets as many be looked back at
  const toml::source_path_ptr no_path_;       // of which each node would hold a counted reference
};

toml::table parse(std::string_view text) {
  const bool ascii = std::all_of(text.begin(), text.end(),
                                 [](char c) { return static_cast<unsigned char>(c) < 0x80; });
  if (!ascii) return toml::parse(text);
  return toml::impl::parser(AsciiReader(text));
}
#else
toml::table parse(std::string_view text) { return toml::parse(text); }
#endif

}  // namespace

std::optional<toml::table> parse_toml(std::string_view text, TomlFault& fault) {
  try {
    return parse(text);
  } catch (const toml::parse_error& error) {
    fault = {error.source().begin, std::string(error.description())};
    return std::nullopt;
  }
}

}  // namespace certgate::agentd
