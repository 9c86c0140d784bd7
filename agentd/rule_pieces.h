// Rule pieces: a large policy file cut so that its rules are parsed and compiled some at a time. A
// parsed tree is many times its text; one that is dropped before the next is made stays in the
// caches.
//
//   const auto cut = cut_rules(text, kPieceBytes);   // nothing: the file is parsed whole
//
// Law: where `rest` is parsed without an error and holds(), and each piece is parsed without an
// error and has the one key "rule", the file has the tables of `rest`, and as rules those of the
// pieces, in order, and then those of `rest`. Nothing needs to be known of strings and brackets for
// that: a cut stands before a line that begins with "[[rule]]". If what is before it is a document
// of its own, a parser of the whole is between two tables there, and goes on as one that begins.
// Whoever finds it otherwise parses the file whole, also to say what is wrong with it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "agentd/toml_reader.h"

namespace certgate::agentd {

struct RulePiece {
  std::string_view text;
  size_t lines_before = 0;
};

struct RuleCut {
  std::string rest;  // what is before the pieces, and what is after them: the last rule at least
  size_t head_lines = 0, piece_lines = 0;
  std::vector<RulePiece> pieces;  // into the text
  size_t rules = 0;               // how many, about

  // Whether the first rule of `rest` is the one after the cut.
  bool holds(const toml::table& rest_table) const;
};

// The longest run of lines that has no table but [[rule]], from the first of these.
std::optional<RuleCut> cut_rules(std::string_view text, size_t piece_bytes);

}  // namespace certgate::agentd
