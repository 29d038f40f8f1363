// pgjdbc finds out by itself what kind of server it talks to: with these settings only a primary will do.
import java.sql.*;
import java.util.Properties;

public class TargetServerType {
    static boolean connects(String url, String type) {
        Properties properties = new Properties();
        properties.setProperty("user", "postgres");
        properties.setProperty("sslmode", "disable");
        properties.setProperty("loginTimeout", "30");
        properties.setProperty("targetServerType", type);
        try (Connection c = DriverManager.getConnection(url, properties);
                Statement s = c.createStatement();
                ResultSet r = s.executeQuery("SELECT 'connected'")) {
            return r.next() && r.getString(1).equals("connected");
        } catch (SQLException e) {
            return false;
        }
    }

    public static void main(String[] args) throws Exception {
        String url = "jdbc:postgresql://127.0.0.1:" + args[0] + "/" + args[1];
        for (String type : new String[] {"any", "primary", "preferSecondary"}) {
            if (!connects(url, type)) throw new AssertionError(type + " does not connect");
        }
        if (connects(url, "secondary")) throw new AssertionError("secondary connects");
        System.out.println("ok");
    }
}
