// check_log: checks a log of certgate with other people's code (golang.org/x/mod/sumdb, as Debian packages it).
//
//	check_log -key VKEY [-held CHECKPOINT] LOG        LOG: the log/ directory, or the URL it is served at
//	check_log -key VKEY -proof FILE                   a .tlog-proof whose extra data is the record
//
// It knows C2SP's tlog-tiles, tlog-checkpoint and tlog-proof and of our records only agent and number.
// Exit status: 0 good, 1 not, with the reason.
package main

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const tileHeight = 8
const tileWidth = 1 << tileHeight

// A place that files are fetched from.
type place string

func (p place) fetch(path string) ([]byte, error) {
	if !strings.HasPrefix(string(p), "http://") {
		return os.ReadFile(filepath.Join(string(p), path))
	}
	answer, err := http.Get(string(p) + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != 200 {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	return io.ReadAll(answer.Body)
}

// sumdb's "tile/8/0/x001/067" is "tile/0/x001/067" here.
func tilePath(t tlog.Tile) string {
	return strings.Replace(t.Path(), fmt.Sprintf("tile/%d/", tileHeight), "tile/", 1)
}

type tileReader struct{ from place }

func (r tileReader) Height() int { return tileHeight }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var all [][]byte
	for _, tile := range tiles {
		data, err := r.from.fetch(tilePath(tile))
		if err != nil {
			return nil, err
		}
		if len(data) != tile.W*tlog.HashSize {
			return nil, fmt.Errorf("%s: %d bytes", tilePath(tile), len(data))
		}
		all = append(all, data)
	}
	return all, nil
}

func (r tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

// Hashes that were computed from the entries alone.
type computed []tlog.Hash

func (c computed) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var all []tlog.Hash
	for _, index := range indexes {
		if index >= int64(len(c)) {
			return nil, fmt.Errorf("no hash %d", index)
		}
		all = append(all, c[index])
	}
	return all, nil
}

func openCheckpoint(data []byte, key note.Verifier) (tlog.Tree, error) {
	var tree tlog.Tree
	opened, err := note.Open(data, note.VerifierList(key))
	if err != nil {
		return tree, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return tree, fmt.Errorf("checkpoint: not three lines")
	}
	if lines[0] != key.Name() {
		return tree, fmt.Errorf("checkpoint: its origin is %s, not %s", lines[0], key.Name())
	}
	if tree.N, err = strconv.ParseInt(lines[1], 10, 64); err != nil || strconv.FormatInt(tree.N, 10) != lines[1] {
		return tree, fmt.Errorf("checkpoint: its size is not a number")
	}
	tree.Hash, err = tlog.ParseHash(lines[2])
	return tree, err
}

// The head of one item of deterministic CBOR: its number, and what follows.
func cborHead(data []byte, major byte) (uint64, []byte, error) {
	if len(data) == 0 || data[0]>>5 != major {
		return 0, nil, fmt.Errorf("not the CBOR that is expected")
	}
	low := data[0] & 31
	if low < 24 {
		return uint64(low), data[1:], nil
	}
	size := 1 << (low - 24)
	if low > 27 || len(data) < 1+size {
		return 0, nil, fmt.Errorf("not the CBOR that is expected")
	}
	var value uint64
	for _, b := range data[1 : 1+size] {
		value = value<<8 | uint64(b)
	}
	return value, data[1+size:], nil
}

// Agent and number of a record, a map whose first keys are 1 (its kind), 2 and 3.
func agentAndNumber(record []byte) (agent string, number uint64, err error) {
	_, rest, err := cborHead(record, 5)
	for key := uint64(1); key <= 3 && err == nil; key++ {
		var got, value uint64
		if got, rest, err = cborHead(rest, 0); err == nil && got != key {
			err = fmt.Errorf("key %d where %d should be", got, key)
		}
		if err != nil {
			break
		}
		if key != 2 {
			number, rest, err = cborHead(rest, 0)
			continue
		}
		if value, rest, err = cborHead(rest, 3); err == nil && value > uint64(len(rest)) {
			err = fmt.Errorf("a text ends too early")
		}
		if err == nil {
			agent, rest = string(rest[:value]), rest[value:]
		}
	}
	return agent, number, err
}

func splitBundle(data []byte, count int) ([][]byte, error) {
	var entries [][]byte
	for i := 0; i < count; i++ {
		if len(data) < 2 || len(data)-2 < int(binary.BigEndian.Uint16(data)) {
			return nil, fmt.Errorf("a bundle ends too early")
		}
		size := int(binary.BigEndian.Uint16(data))
		entries = append(entries, data[2:2+size])
		data = data[2+size:]
	}
	if len(data) != 0 {
		return nil, fmt.Errorf("a bundle has %d bytes too many", len(data))
	}
	return entries, nil
}

func checkEntries(from place, tree tlog.Tree) error {
	tiles := tlog.TileHashReader(tree, tileReader{from})
	var hashes computed
	last := map[string]uint64{}
	for start := int64(0); start < tree.N; start += tileWidth {
		count := int(tree.N - start)
		path := tilePath(tlog.Tile{H: tileHeight, L: 0, N: start / tileWidth, W: tileWidth})
		if count < tileWidth {
			path = tilePath(tlog.Tile{H: tileHeight, L: 0, N: start / tileWidth, W: count})
		} else {
			count = tileWidth
		}
		data, err := from.fetch(strings.Replace(path, "tile/0/", "tile/entries/", 1))
		if err != nil {
			return err
		}
		entries, err := splitBundle(data, count)
		if err != nil {
			return fmt.Errorf("%s: %v", path, err)
		}
		for i, entry := range entries {
			index := start + int64(i)
			leaf := tlog.RecordHash(entry)
			stored, err := tiles.ReadHashes([]int64{tlog.StoredHashIndex(0, index)})
			if err != nil {
				return err
			}
			if stored[0] != leaf {
				return fmt.Errorf("record %d is not the one that was signed", index)
			}
			more, err := tlog.StoredHashesForRecordHash(index, leaf, hashes)
			if err != nil {
				return err
			}
			hashes = append(hashes, more...)
			agent, number, err := agentAndNumber(entry)
			if err != nil {
				return fmt.Errorf("record %d: %v", index, err)
			}
			if number != last[agent]+1 {
				return fmt.Errorf("record %d: number %d of agent %s follows %d", index, number, agent, last[agent])
			}
			last[agent] = number
		}
	}
	root, err := tlog.TreeHash(tree.N, hashes)
	if err == nil && root != tree.Hash {
		err = fmt.Errorf("the records have another root than the checkpoint")
	}
	return err
}

func checkHeld(from place, tree tlog.Tree, heldFile string, key note.Verifier) error {
	data, err := os.ReadFile(heldFile)
	if err != nil {
		return err
	}
	held, err := openCheckpoint(data, key)
	if err != nil {
		return fmt.Errorf("held checkpoint: %v", err)
	}
	if held.N > tree.N {
		return fmt.Errorf("the log has %d records, %d were seen before", tree.N, held.N)
	}
	if held.N == 0 {
		return nil
	}
	proof, err := tlog.ProveTree(tree.N, held.N, tlog.TileHashReader(tree, tileReader{from}))
	if err != nil {
		return err
	}
	return tlog.CheckTree(proof, tree.N, tree.Hash, held.N, held.Hash)
}

func checkProof(file string, key note.Verifier) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	head, checkpoint, found := bytes.Cut(data, []byte("\n\n"))
	lines := strings.Split(string(head), "\n")
	if !found || len(lines) < 3 || lines[0] != "c2sp.org/tlog-proof@v1" {
		return fmt.Errorf("not a tlog-proof")
	}
	tree, err := openCheckpoint(checkpoint, key)
	if err != nil {
		return err
	}
	record, err := base64.StdEncoding.Strict().DecodeString(strings.TrimPrefix(lines[1], "extra "))
	if err != nil {
		return err
	}
	index, err := strconv.ParseInt(strings.TrimPrefix(lines[2], "index "), 10, 64)
	if err != nil {
		return err
	}
	var proof tlog.RecordProof
	for _, line := range lines[3:] {
		hash, err := tlog.ParseHash(line)
		if err != nil {
			return err
		}
		proof = append(proof, hash)
	}
	return tlog.CheckRecord(proof, tree.N, tree.Hash, index, tlog.RecordHash(record))
}

func run() (string, error) {
	keyText := flag.String("key", "", "the log's key, as you kept it")
	held := flag.String("held", "", "a checkpoint that you saw before")
	proof := flag.String("proof", "", "a .tlog-proof instead of a log")
	flag.Parse()
	key, err := note.NewVerifier(*keyText)
	if err != nil {
		return "", err
	}
	if *proof != "" {
		return "the record is in the log", checkProof(*proof, key)
	}
	if flag.NArg() != 1 {
		return "", fmt.Errorf("usage: check_log -key VKEY [-held CHECKPOINT] LOG | -proof FILE")
	}
	from := place(flag.Arg(0))
	data, err := from.fetch("checkpoint")
	if err != nil {
		return "", err
	}
	tree, err := openCheckpoint(data, key)
	if err != nil {
		return "", err
	}
	if *held != "" {
		if err := checkHeld(from, tree, *held, key); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("%d records", tree.N), checkEntries(from, tree)
}

func main() {
	what, err := run()
	if err != nil {
		fmt.Println("no:", err)
		os.Exit(1)
	}
	fmt.Println("yes:", what)
}
