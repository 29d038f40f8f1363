// pgjdbc: simple and extended mode, server-prepared statements, batches, fetch sizes, COPY, targetServerType=primary.
import java.io.StringReader;
import java.io.StringWriter;
import java.sql.*;
import java.util.Properties;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public class Main {
    static String url;

    static Connection open(String... settings) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", "postgres");
        properties.setProperty("sslmode", "disable");
        properties.setProperty("loginTimeout", "10");
        for (int i = 0; i < settings.length; i += 2) properties.setProperty(settings[i], settings[i + 1]);
        return DriverManager.getConnection(url, properties);
    }

    static void check(Object got, Object want) {
        if (!want.equals(got)) throw new AssertionError("got " + got + " instead of " + want);
    }

    static Object one(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            r.next();
            return r.getObject(1);
        }
    }

    static void work(Connection c, String table) throws Exception {
        try (Statement s = c.createStatement()) {
            s.execute("CREATE TABLE " + table + " (n int PRIMARY KEY, v text)");
        }
        c.setAutoCommit(false);
        try (PreparedStatement p = c.prepareStatement("INSERT INTO " + table + " VALUES (?, ?)")) {
            for (int n = 0; n < 1000; n++) {
                p.setInt(1, n);
                p.setString(2, "v" + n);
                p.addBatch();
            }
            check(p.executeBatch().length, 1000);
        }
        c.commit();
        c.setAutoCommit(true);
        // Past prepareThreshold the driver uses named statements and binary results.
        try (PreparedStatement p = c.prepareStatement("SELECT v FROM " + table + " WHERE n = ?")) {
            for (int n = 0; n < 50; n++) {
                p.setInt(1, n);
                try (ResultSet r = p.executeQuery()) {
                    r.next();
                    check(r.getString(1), "v" + n);
                }
            }
        }
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
            s.setFetchSize(77);
            int rows = 0;
            try (ResultSet r = s.executeQuery("SELECT n FROM " + table + " ORDER BY n")) {
                while (r.next()) check(r.getInt(1), rows++);
            }
            check(rows, 1000);
            Savepoint savepoint = c.setSavepoint();
            try {
                s.execute("SELECT 1/0");
                throw new AssertionError("no error");
            } catch (SQLException e) {
                check(e.getSQLState(), "22012");
            }
            c.rollback(savepoint);
            s.executeUpdate("UPDATE " + table + " SET v = 'changed' WHERE n = 5");
        }
        c.rollback();
        c.setAutoCommit(true);
        check(one(c, "SELECT v FROM " + table + " WHERE n = 5"), "v5");
        CopyManager copies = c.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int n = 5000; n < 8000; n++) lines.append(n).append("\tcopied\n");
        check(copies.copyIn("COPY " + table + " FROM STDIN", new StringReader(lines.toString())), 3000L);
        StringWriter out = new StringWriter();
        check(copies.copyOut("COPY (SELECT n FROM " + table + " WHERE n >= 5000) TO STDOUT", out), 3000L);
        c.setReadOnly(true);
        check(one(c, "SELECT count(*) FROM " + table), 4000L);
        c.setReadOnly(false);
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            s.execute("SELECT pg_sleep(30)");
            throw new AssertionError("no timeout");
        } catch (SQLException e) {
            check(e.getSQLState(), "57014");
        }
        c.getMetaData().getTables(null, "public", "%", null).close();
        c.getMetaData().getColumns(null, "public", table, "%").close();
    }

    public static void main(String[] args) throws Exception {
        url = "jdbc:postgresql://127.0.0.1:" + args[0] + "/" + args[1];
        try (Connection c = open()) { work(c, "extended"); }
        try (Connection c = open("preferQueryMode", "simple")) { work(c, "simple"); }
        try (Connection c = open("preferQueryMode", "extendedForPrepared")) { work(c, "for_prepared"); }
        try (Connection c = open("prepareThreshold", "1", "defaultRowFetchSize", "10")) { work(c, "eager"); }
        try (Connection c = open("targetServerType", "primary")) { check(one(c, "SELECT 1"), 1); }
        try (Connection c = open("reWriteBatchedInserts", "true")) { work(c, "rewritten"); }
        System.out.println("ok");
    }
}
