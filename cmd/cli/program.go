package cli

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"millrace/jobs/builtin"
	"millrace/pkg/api"
	"millrace/pkg/api/apiconnect"
)

// shipped are the local files that go with a job, by SHA-256.
type shipped struct {
	paths map[string]string // SHA-256 to path
	sizes map[string]int64
	temp  string // folder of what was built here; "" = none
}

func (s *shipped) close() error {
	if s.temp == "" {
		return nil
	}
	return os.RemoveAll(s.temp)
}

func (s *shipped) add(name, path string, executable bool) (*api.ShippedFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, usagef("name a file that can be read", "shipped file: %s", err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, usagef("name a regular file; folders can be shipped as an archive", "%s is not a regular file", path)
	}
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	sum := hex.EncodeToString(h.Sum(nil))
	s.paths[sum], s.sizes[sum] = path, n
	return &api.ShippedFile{Name: name, Sha256: sum, Size: n, Executable: executable || st.Mode()&0o111 != 0}, nil
}

// upload sends what the site lacks. Before it sends anything it asks allowed.
func (s *shipped) upload(ctx context.Context, conn *connection, allowed func() error) error {
	if len(s.paths) == 0 {
		return nil
	}
	sums := make([]string, 0, len(s.paths))
	for sum := range s.paths {
		sums = append(sums, sum)
	}
	slices.Sort(sums)
	resp, err := conn.api().MissingFiles(ctx, connect.NewRequest(&api.MissingFilesRequest{Sha256: sums}))
	if err != nil {
		return err
	}
	if len(resp.Msg.GetSha256()) > 0 {
		if err := allowed(); err != nil {
			return err
		}
	}
	for _, sum := range resp.Msg.GetSha256() {
		if s.paths[sum] == "" {
			continue
		}
		err := conn.Repeat(ctx, apiconnect.MillraceServiceUploadFileProcedure, func() (bool, error) {
			return false, uploadFile(ctx, conn.api(), sum, s.paths[sum], s.sizes[sum])
		})
		if err != nil {
			return fmt.Errorf("upload %s: %w", s.paths[sum], err)
		}
	}
	return nil
}

func uploadFile(ctx context.Context, svc apiconnect.MillraceServiceClient, sum, path string, size int64) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	stream := svc.UploadFile(ctx)
	buf := make([]byte, 512<<10)
	for first := true; ; first = false {
		n, err := io.ReadFull(f, buf)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		msg := &api.UploadFileRequest{Data: buf[:n]}
		if first {
			msg.Sha256, msg.Size = sum, size
		}
		if n > 0 || first {
			// io.EOF means that the server has answered; CloseAndReceive says what.
			if sendErr := stream.Send(msg); errors.Is(sendErr, io.EOF) {
				break
			} else if sendErr != nil {
				return sendErr
			}
		}
		if err != nil {
			break
		}
	}
	_, err = stream.CloseAndReceive()
	return err
}

// resolveProgram finds out what PROGRAM is: a built-in, an executable made with
// the SDK, or a Go package's folder, which is built.
func resolveProgram(ctx context.Context, program string, args []string, s *shipped) (p *api.Program, mapOnly bool, err error) {
	isBuiltin := slices.ContainsFunc(builtin.List(), func(i builtin.Info) bool { return i.Name == program })
	st, statErr := os.Stat(program)
	if isBuiltin || statErr != nil && !strings.ContainsAny(program, `/\`) {
		mapOnly, err := builtin.Check(program, args)
		if err != nil {
			next := "millrace job programs"
			return nil, false, usagef(next, "%s", err)
		}
		return &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_BUILTIN, Name: program, Args: args}, mapOnly, nil
	}
	if statErr != nil {
		return nil, false, usagef("millrace job programs lists the built-in ones", "program %s does not exist", program)
	}
	binary := program
	if st.IsDir() {
		if binary, err = buildPackage(ctx, program, s); err != nil {
			return nil, false, err
		}
	} else if st.Mode()&0o111 == 0 {
		return nil, false, usagef("millrace run PROGRAM INPUT… OUTPUT; if it is a program: chmod +x "+program, "%s is not executable: PROGRAM comes first", program)
	}
	d, err := describe(ctx, binary, program, args)
	if err != nil {
		return nil, false, err
	}
	name := d.Name
	if name == "" {
		name = filepath.Base(strings.TrimRight(program, "/"))
	}
	file, err := s.add(filepath.Base(binary), binary, true)
	if err != nil {
		return nil, false, err
	}
	return &api.Program{Kind: api.ProgramKind_PROGRAM_KIND_GO, Name: name, Args: args, Executable: file}, d.MapOnly, nil
}

// buildPackage builds a Go package for the nodes: Linux, this machine's architecture, static.
func buildPackage(ctx context.Context, folder string, s *shipped) (string, error) {
	if _, err := exec.LookPath("go"); err != nil {
		return "", usagef("install Go, or build the program elsewhere and name the binary", "%s is a folder, and there is no go command to build it with", folder)
	}
	temp, err := os.MkdirTemp("", "millrace-build-")
	if err != nil {
		return "", err
	}
	s.temp = temp
	abs, err := filepath.Abs(folder)
	if err != nil {
		return "", err
	}
	out := filepath.Join(temp, filepath.Base(abs))
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", out, ".")
	cmd.Dir = abs
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	if text, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return "", usagef("mend it, then try again: cd "+folder+" && go build", "go build %s failed:\n%s", folder, firstLines(strings.TrimSpace(string(text)), compilerLines))
	}
	// Of a package that is no main, go build writes an archive, which is not executable, or nothing.
	if st, err := os.Stat(out); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return "", usagef("name the folder of a package main that calls mapreduce.Main: examples/wordcount is one", "%s has no package main", folder)
	}
	return out, nil
}

// compilerLines is how much of a compiler's complaints is shown.
const compilerLines = 10

func firstLines(text string, most int) string {
	lines := strings.Split(text, "\n")
	if more := len(lines) - most; more > 0 {
		lines = append(lines[:most], fmt.Sprintf("… and %s", plural(more, "more line")))
	}
	return strings.Join(lines, "\n")
}

// description is what an executable made with the SDK says of itself.
type description struct {
	SDK     int    `json:"sdk"`
	Name    string `json:"name"`
	MapOnly bool   `json:"mapOnly"`
	Error   string `json:"error"`
}

func describe(ctx context.Context, binary, program string, args []string) (description, error) {
	var d description
	abs, err := filepath.Abs(binary)
	if err != nil {
		return d, err
	}
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(limited, abs, args...)
	cmd.Env = append(os.Environ(), "MILLRACE_DESCRIBE=1")
	cmd.WaitDelay = time.Second
	var out bytes.Buffer
	cmd.Stdout = &limitedBuffer{b: &out, left: 64 << 10}
	err = cmd.Run()
	if ctx.Err() != nil {
		return d, ctx.Err()
	}
	line, _, _ := bytes.Cut(out.Bytes(), []byte("\n"))
	if json.Unmarshal(line, &d) != nil || d.SDK == 0 {
		why := "it did not describe itself"
		if err != nil {
			why = whyNotRun(abs, err)
		}
		if binary != program { // a package, built here
			return d, usagef("call mapreduce.Main in its main function: examples/wordcount shows how", "the package %s is no program made with millrace/jobs/mapreduce: %s", program, why)
		}
		return d, usagef("for other executables: millrace job submit --mapper '"+program+"' --file "+program+" …", "%s is not a program made with millrace/jobs/mapreduce: %s", program, why)
	}
	if d.Error != "" {
		return d, usagef("check the arguments after --", "%s: %s", program, d.Error)
	}
	return d, nil
}

// whyNotRun says in plain words why an executable did not describe itself.
func whyNotRun(path string, err error) string {
	switch {
	case errors.Is(err, syscall.ENOEXEC):
		f, elfErr := elf.Open(path)
		if elfErr != nil {
			return "it is neither an executable of this system nor a script that begins with #!"
		}
		defer f.Close()
		return fmt.Sprintf("it is for another machine (%s), and this one is %s", strings.ToLower(strings.TrimPrefix(f.Machine.String(), "EM_")), runtime.GOARCH)
	case errors.Is(err, fs.ErrNotExist):
		return "the interpreter that it names in its first line, or its loader, is not on this machine"
	case errors.Is(err, fs.ErrPermission):
		return "this user may not execute it"
	}
	return "it did not describe itself (" + err.Error() + ")"
}

// limitedBuffer keeps the first bytes and takes the rest in without keeping it.
type limitedBuffer struct {
	b    *bytes.Buffer
	left int
}

func (l *limitedBuffer) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.b.Write(p[:n])
	l.left -= n
	return len(p), nil
}
