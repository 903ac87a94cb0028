package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"millrace/cmd/cli/s3source"
	"millrace/pkg/client"
	"millrace/pkg/nodedir"
)

func contextEnv(c *call) error {
	source, err := c.storage()
	if err != nil {
		return err
	}
	if source.Kind == s3source.None {
		return usagef("millrace context set --s3 URL …", "no object store is known here")
	}
	s := source.S3
	if c.Bool("duckdb") {
		sql, err := duckDBSecret(s)
		if err != nil {
			return err
		}
		return c.print(map[string]string{"sql": sql}, func(w io.Writer) { io.WriteString(w, sql) })
	}
	vars, err := storageEnv(s, c.caFolder)
	if err != nil {
		return err
	}
	byName := map[string]string{}
	for _, v := range vars {
		byName[v[0]] = v[1]
	}
	return c.print(byName, func(w io.Writer) {
		for _, v := range vars {
			fmt.Fprintf(w, "export %s=%s\n", v[0], shellQuote(v[1]))
		}
		if byName["MC_HOST_millrace"] == "" {
			fmt.Fprintln(w, "# no MC_HOST_millrace: mc takes what follows a colon in a key for a session token")
		}
		if s.SessionToken == "" && c.env.Getenv("AWS_SESSION_TOKEN") != "" {
			fmt.Fprintln(w, "unset AWS_SESSION_TOKEN") // of another key
		}
	})
}

// caFolder is where root certificates are kept for other tools.
func (c *call) caFolder() (string, error) {
	home, err := c.home()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, "ca"), nil
}

// keepCA writes the store's root certificates to a file of their own, as other tools want them.
func keepCA(pem, folder string) (string, error) {
	sum := sha256.Sum256([]byte(pem))
	file := filepath.Join(folder, hex.EncodeToString(sum[:8])+".pem")
	if data, err := os.ReadFile(file); err == nil && string(data) == pem {
		return file, nil
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return "", fmt.Errorf("keep the store's root certificates: %w", err)
	}
	if err := nodedir.WriteFile(file, []byte(pem)); err != nil {
		return "", fmt.Errorf("keep the store's root certificates: %w", err)
	}
	return file, nil
}

// storageEnv is the variables by which other programs find the same storage. folder says where root certificates
// may lie; it is asked if there are any.
func storageEnv(s client.S3, folder func() (string, error)) ([][2]string, error) {
	region := s.Region
	if region == "" {
		region = "us-east-1"
	}
	vars := [][2]string{
		{"AWS_ENDPOINT_URL", s.Endpoint}, {"AWS_ENDPOINT_URL_S3", s.Endpoint},
		{"AWS_ACCESS_KEY_ID", s.AccessKey}, {"AWS_SECRET_ACCESS_KEY", s.SecretKey},
	}
	if s.SessionToken != "" {
		vars = append(vars, [2]string{"AWS_SESSION_TOKEN", s.SessionToken})
	}
	vars = append(vars,
		[2]string{"AWS_REGION", region}, [2]string{"AWS_DEFAULT_REGION", region},
		[2]string{"RCLONE_CONFIG_MILLRACE_TYPE", "s3"}, [2]string{"RCLONE_CONFIG_MILLRACE_PROVIDER", "Other"},
		[2]string{"RCLONE_CONFIG_MILLRACE_ENDPOINT", s.Endpoint}, [2]string{"RCLONE_CONFIG_MILLRACE_REGION", region},
		[2]string{"RCLONE_CONFIG_MILLRACE_ACCESS_KEY_ID", s.AccessKey}, [2]string{"RCLONE_CONFIG_MILLRACE_SECRET_ACCESS_KEY", s.SecretKey},
		[2]string{"RCLONE_CONFIG_MILLRACE_FORCE_PATH_STYLE", "true"},
	)
	if s.SessionToken != "" {
		vars = append(vars, [2]string{"RCLONE_CONFIG_MILLRACE_SESSION_TOKEN", s.SessionToken})
	}
	if host := mcHost(s); host != "" {
		vars = append(vars, [2]string{"MC_HOST_millrace", host})
	}
	if s.CABundle != "" {
		dir, err := folder()
		if err != nil {
			return nil, err
		}
		file, err := keepCA(s.CABundle, dir)
		if err != nil {
			return nil, err
		}
		vars = append(vars, [2]string{"AWS_CA_BUNDLE", file}, [2]string{"RCLONE_CA_CERT", file})
	}
	return vars, nil
}

// mcHost is the store as mc reads it: like a URL, but nothing in it is escaped (mc undoes no escapes), and a second
// colon begins a session token. So a key with a colon in it cannot be said: "".
func mcHost(s client.S3) string {
	scheme, host, ok := strings.Cut(s.Endpoint, "://")
	if !ok || strings.Contains(s.AccessKey+s.SecretKey, ":") {
		return ""
	}
	key := s.AccessKey + ":" + s.SecretKey
	if s.SessionToken != "" {
		key += ":" + s.SessionToken
	}
	return scheme + "://" + key + "@" + host
}

func duckDBSecret(s client.S3) (string, error) {
	u, err := url.Parse(s.Endpoint)
	if err != nil {
		return "", fmt.Errorf("object store's URL: %w", err)
	}
	quote := func(v string) string { return "'" + strings.ReplaceAll(v, "'", "''") + "'" }
	region := s.Region
	if region == "" {
		region = "us-east-1"
	}
	lines := []string{
		"CREATE OR REPLACE SECRET millrace (", "  TYPE s3,", "  KEY_ID " + quote(s.AccessKey) + ",", "  SECRET " + quote(s.SecretKey) + ",",
	}
	if s.SessionToken != "" {
		lines = append(lines, "  SESSION_TOKEN "+quote(s.SessionToken)+",")
	}
	lines = append(lines, "  REGION "+quote(region)+",", "  ENDPOINT "+quote(u.Host)+",", "  URL_STYLE 'path',",
		fmt.Sprintf("  USE_SSL %t", u.Scheme == "https"), ");")
	return strings.Join(lines, "\n") + "\n", nil
}

// shellQuote quotes a word for bash, zsh, fish and any POSIX shell: within single quotes all of them take
// everything but ' and \ alike, and those two alike outside, after a backslash.
func shellQuote(s string) string {
	plain := strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:@+,", r))
	}) < 0
	if plain && s != "" {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexAny(s, `'\`)
		if i < 0 {
			break
		}
		if i > 0 {
			b.WriteString("'" + s[:i] + "'")
		}
		b.WriteString(`\` + s[i:i+1])
		s = s[i+1:]
	}
	if s != "" || b.Len() == 0 {
		b.WriteString("'" + s + "'")
	}
	return b.String()
}
