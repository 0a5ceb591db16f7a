// Verifier checks a log's published files with implementations that share no code with Prooftrail: Go's own transparency log
// (golang.org/x/mod/sumdb) and transparency.dev's (formats, merkle, tessera), which speak C2SP.
//
//	verifier DIRECTORY ORIGIN LOG-KEY [WITNESS-KEY]...
//
// The directory is laid out as the evidence of one tenant, with proofs added:
//
//	checkpoint/<size>            signed notes; the log and every witness must have signed each
//	tile/<L>/<N>[.p/<W>]         tlog-tiles; must lead to the root of each checkpoint
//	consistency/<old>-<new>      one hash in base64 a line
//	proof/<index>.tlog-proof     tlog-proof of the entry in entry/<index>
//
// Prints what it has checked, or why it refuses and exits with 1.
package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/transparency-dev/formats/log"
	cosignature "github.com/transparency-dev/formats/note"
	tlogproof "github.com/transparency-dev/formats/proof"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4:]); err != nil {
		fmt.Fprintln(os.Stderr, "refused:", err)
		os.Exit(1)
	}
}

func run(directory, origin, logKey string, witnessKeys []string) error {
	published, err := open(directory, origin, logKey, witnessKeys)
	if err != nil {
		return err
	}
	for _, check := range []func() (string, error){
		published.checkTiles, published.checkGrowth, published.checkConsistencyProofs, published.checkInclusionProofs,
	} {
		checked, err := check()
		if err != nil {
			return err
		}
		fmt.Println(checked)
	}
	return nil
}

// published is a log's directory, with its checkpoints by ascending size.
type published struct {
	directory   string
	origin      string
	log         note.Verifier
	witnesses   []note.Verifier
	checkpoints []*log.Checkpoint
}

func open(directory, origin, logKey string, witnessKeys []string) (*published, error) {
	p := &published{directory: directory, origin: origin}
	var err error
	if p.log, err = note.NewVerifier(logKey); err != nil {
		return nil, fmt.Errorf("log key: %w", err)
	}
	for _, key := range witnessKeys {
		witness, err := cosignature.NewVerifierForCosignatureV1(key)
		if err != nil {
			return nil, fmt.Errorf("witness key: %w", err)
		}
		p.witnesses = append(p.witnesses, witness)
	}
	for name, data := range files(directory, "checkpoint/*") {
		checkpoint, err := p.open(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		p.checkpoints = append(p.checkpoints, checkpoint)
	}
	if len(p.checkpoints) == 0 {
		return nil, errors.New("no checkpoint")
	}
	slices.SortFunc(p.checkpoints, func(a, b *log.Checkpoint) int { return int(a.Size) - int(b.Size) })
	return p, nil
}

// open verifies a note by the log's key and every witness's.
func (p *published) open(data []byte) (*log.Checkpoint, error) {
	checkpoint, extensions, opened, err := log.ParseCheckpoint(data, p.origin, p.log, p.witnesses...)
	if err != nil {
		return nil, err
	}
	if len(opened.Sigs) != 1+len(p.witnesses) || len(opened.UnverifiedSigs) != 0 || len(extensions) != 0 {
		return nil, fmt.Errorf("%d signatures of %d are good", len(opened.Sigs), 1+len(p.witnesses))
	}
	return checkpoint, nil
}

// checkTiles reads all leaves, and compares every tile with the one that Go's implementation makes of them.
func (p *published) checkTiles() (string, error) {
	var old int64
	for _, checkpoint := range p.checkpoints {
		size := int64(checkpoint.Size)
		hashes, err := p.storedHashes(checkpoint.Size)
		if err != nil {
			return "", err
		}
		root, err := tlog.TreeHash(size, hashes)
		if err != nil {
			return "", err
		}
		if root != tlog.Hash(checkpoint.Hash) {
			return "", fmt.Errorf("the tiles of size %d lead to the root %v", size, root)
		}
		for _, tile := range tlog.NewTiles(8, old, size) {
			expected, err := tlog.ReadTileData(tile, hashes)
			if err != nil {
				return "", err
			}
			found, err := tileReader(p.directory).ReadTiles([]tlog.Tile{tile})
			if err != nil {
				return "", err
			}
			if !bytes.Equal(found[0], expected) {
				return "", fmt.Errorf("%s is not the tile of its leaves", tile.Path())
			}
		}
		old = size
	}
	return fmt.Sprintf("%d checkpoints, %d leaves", len(p.checkpoints), old), nil
}

// storedHashes is the tree over the leaves that tessera's client finds, in the order in which Go's implementation keeps it.
func (p *published) storedHashes(size uint64) (tlog.HashReader, error) {
	leaves, err := client.FetchLeafHashes(context.Background(), p.fetcher().ReadTile, 0, size, size)
	if err != nil {
		return nil, err
	}
	var stored []tlog.Hash
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		var found []tlog.Hash
		for _, index := range indexes {
			found = append(found, stored[index])
		}
		return found, nil
	})
	for index, leaf := range leaves {
		hashes, err := tlog.StoredHashesForRecordHash(int64(index), tlog.Hash(leaf), reader)
		if err != nil {
			return nil, err
		}
		stored = append(stored, hashes...)
	}
	return reader, nil
}

// checkGrowth proves from the tiles that each checkpoint continues the one before.
func (p *published) checkGrowth() (string, error) {
	for i, next := range p.checkpoints[1:] {
		old := p.checkpoints[i]
		hashes, err := p.consistency(old, next)
		if err != nil {
			return "", err
		}
		if err := verifyConsistency(old, next, hashes); err != nil {
			return "", fmt.Errorf("from %d to %d: %w", old.Size, next.Size, err)
		}
	}
	return fmt.Sprintf("%d times grown", len(p.checkpoints)-1), nil
}

func (p *published) checkConsistencyProofs() (string, error) {
	found := files(p.directory, "consistency/*")
	for name, data := range found {
		var oldSize, newSize uint64
		if _, err := fmt.Sscanf(filepath.Base(name), "%d-%d", &oldSize, &newSize); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		old, next := p.at(oldSize), p.at(newSize)
		if old == nil || next == nil {
			return "", fmt.Errorf("%s: no such checkpoints", name)
		}
		hashes, err := decodeHashes(data)
		if err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		if err := verifyConsistency(old, next, hashes); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
		ours, err := p.consistency(old, next)
		if err := expect(err, slices.EqualFunc(ours, hashes, bytes.Equal)); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return fmt.Sprintf("%d consistency proofs", len(found)), nil
}

func (p *published) checkInclusionProofs() (string, error) {
	found := files(p.directory, "proof/*.tlog-proof")
	for name, data := range found {
		if err := p.checkInclusionProof(data); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	return fmt.Sprintf("%d inclusion proofs", len(found)), nil
}

func (p *published) checkInclusionProof(data []byte) error {
	var parsed tlogproof.TLogProof
	if err := parsed.Unmarshal(data); err != nil {
		return err
	}
	if !bytes.Equal(parsed.Marshal(), data) {
		return errors.New("written in another form")
	}
	checkpoint, err := p.open(parsed.Checkpoint)
	if err != nil {
		return err
	}
	entry, err := os.ReadFile(filepath.Join(p.directory, "entry", fmt.Sprint(parsed.Index)))
	if err != nil {
		return err
	}
	hashes := make([][]byte, 0, len(parsed.Hashes))
	record := make(tlog.RecordProof, 0, len(parsed.Hashes))
	for _, hash := range parsed.Hashes {
		hashes, record = append(hashes, hash[:]), append(record, hash)
	}
	leaf := tlog.RecordHash(entry)
	size, index := int64(checkpoint.Size), int64(parsed.Index)
	if err := tlog.CheckRecord(record, size, tlog.Hash(checkpoint.Hash), index, leaf); err != nil {
		return err
	}
	if err := proof.VerifyInclusion(
		rfc6962.DefaultHasher, parsed.Index, checkpoint.Size, leaf[:], hashes, checkpoint.Hash,
	); err != nil {
		return err
	}
	fromTiles, err := tlog.ProveRecord(size, index, p.goReader(checkpoint))
	if err := expect(err, slices.Equal(fromTiles, record)); err != nil {
		return err
	}
	builder, err := p.builder(checkpoint)
	if err != nil {
		return err
	}
	built, err := builder.InclusionProof(context.Background(), parsed.Index)
	return expect(err, slices.EqualFunc(built, hashes, bytes.Equal))
}

// expect fails where a proof could not be made, or is not the published one.
func expect(err error, equal bool) error {
	if err == nil && !equal {
		return errors.New("not the proof that the tiles give")
	}
	return err
}

// consistency makes a proof from the tiles, by both implementations.
func (p *published) consistency(old, next *log.Checkpoint) ([][]byte, error) {
	builder, err := p.builder(next)
	if err != nil {
		return nil, err
	}
	built, err := builder.ConsistencyProof(context.Background(), old.Size, next.Size)
	if err != nil {
		return nil, err
	}
	fromTiles, err := tlog.ProveTree(int64(next.Size), int64(old.Size), p.goReader(next))
	if err != nil {
		return nil, err
	}
	if !slices.EqualFunc(fromTiles, built, func(a tlog.Hash, b []byte) bool { return bytes.Equal(a[:], b) }) {
		return nil, errors.New("the two implementations disagree")
	}
	return built, nil
}

func verifyConsistency(old, next *log.Checkpoint, hashes [][]byte) error {
	tree := make(tlog.TreeProof, 0, len(hashes))
	for _, hash := range hashes {
		tree = append(tree, tlog.Hash(hash))
	}
	err := tlog.CheckTree(tree, int64(next.Size), tlog.Hash(next.Hash), int64(old.Size), tlog.Hash(old.Hash))
	if err != nil {
		return err
	}
	return proof.VerifyConsistency(rfc6962.DefaultHasher, old.Size, next.Size, hashes, old.Hash, next.Hash)
}

func (p *published) at(size uint64) *log.Checkpoint {
	for _, checkpoint := range p.checkpoints {
		if checkpoint.Size == size {
			return checkpoint
		}
	}
	return nil
}

func (p *published) builder(checkpoint *log.Checkpoint) (*client.ProofBuilder, error) {
	return client.NewProofBuilder(context.Background(), checkpoint.Size, p.fetcher().ReadTile)
}

func (p *published) fetcher() client.FileFetcher {
	return client.FileFetcher{Root: p.directory}
}

func (p *published) goReader(checkpoint *log.Checkpoint) tlog.HashReader {
	tree := tlog.Tree{N: int64(checkpoint.Size), Hash: tlog.Hash(checkpoint.Hash)}
	return tlog.TileHashReader(tree, tileReader(p.directory))
}

// tileReader lets Go's implementation read tiles of height 8, which it would call tile/8/..., by their names in tlog-tiles.
type tileReader string

func (tileReader) Height() int                         { return 8 }
func (tileReader) SaveTiles(_ []tlog.Tile, _ [][]byte) {}
func (directory tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var contents [][]byte
	for _, tile := range tiles {
		path := "tile/" + strings.TrimPrefix(tile.Path(), "tile/8/")
		content, err := os.ReadFile(filepath.Join(string(directory), path))
		if err != nil {
			return nil, err
		}
		contents = append(contents, content)
	}
	return contents, nil
}

func decodeHashes(data []byte) ([][]byte, error) {
	var hashes [][]byte
	for _, line := range strings.Fields(string(data)) {
		hash, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(hash) != tlog.HashSize {
			return nil, fmt.Errorf("%q is no hash", line)
		}
		hashes = append(hashes, hash)
	}
	return hashes, nil
}

// files reads what lies in a directory, by path.
func files(directory, pattern string) map[string][]byte {
	found := map[string][]byte{}
	paths, err := filepath.Glob(filepath.Join(directory, pattern))
	if err != nil {
		panic(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			panic(err)
		}
		found[path] = data
	}
	return found
}
