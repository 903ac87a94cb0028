package input

import (
	"strings"

	"millrace/jobs"
	"millrace/pkg/api"
)

// maxPieces bounds the pieces of one split, so that a lease stays small however
// small the objects are.
const maxPieces = 10_000

// Cut cuts objects into splits of about size bytes (128 MiB if size < 1), in the
// order of the objects: big ones at multiples of size, small ones and the
// ends of big ones packed together up to it, gzip ones alone. Empty objects
// give no piece, gzip ones neither (folder markers and failed writes look so), and no split is empty.
func Cut(objects []Object, size int64, format string) []*api.Split {
	if size < 1 {
		size = jobs.DefaultSplitSize
	}
	if format == jobs.FormatFiles {
		return pack(objects, size)
	}
	p := packer{size: size, format: format}
	for _, o := range objects {
		switch {
		case o.Size <= 0:
		case gzipped(o.Key):
			p.flush()
			p.add(o, 0, o.Size, true)
			p.flush()
		default:
			for offset := int64(0); offset < o.Size; offset += size {
				p.add(o, offset, min(size, o.Size-offset), false)
			}
		}
	}
	p.flush()
	return p.splits
}

// maxFiles bounds the files of one split of those that are copied: each costs requests, however small it is, and many
// nodes make them sooner.
const maxFiles = 250

// pack makes splits of whole files, empty ones too: small ones together, up to the size.
func pack(objects []Object, size int64) []*api.Split {
	p := packer{size: size, format: jobs.FormatFiles}
	for _, o := range objects {
		if len(p.pieces) == maxFiles {
			p.flush()
		}
		p.add(o, 0, o.Size, true)
		p.pieces[len(p.pieces)-1].Name = o.Name
	}
	p.flush()
	return p.splits
}

// packer fills one split after the other; it never goes back, so that splits
// are in the order of the input.
type packer struct {
	size   int64
	format string
	splits []*api.Split
	pieces []*api.Piece
	filled int64
}

func (p *packer) add(o Object, offset, length int64, whole bool) {
	if p.filled+length > p.size || len(p.pieces) == maxPieces {
		p.flush()
	}
	p.pieces = append(p.pieces, &api.Piece{
		Bucket: o.Bucket, Key: o.Key, Etag: o.ETag, ObjectSize: o.Size,
		Offset: offset, Length: length, Whole: whole,
	})
	p.filled += length
}

func (p *packer) flush() {
	if len(p.pieces) > 0 {
		p.splits = append(p.splits, &api.Split{Pieces: p.pieces, Format: p.format})
	}
	p.pieces, p.filled = nil, 0
}

// gzipped says whether an object is a gzip file, which cannot be cut: by its name, .gz or
// .gzip in any case.
func gzipped(key string) bool {
	key = strings.ToLower(key)
	return strings.HasSuffix(key, ".gz") || strings.HasSuffix(key, ".gzip")
}
