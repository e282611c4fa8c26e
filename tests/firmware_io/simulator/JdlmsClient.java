import java.util.Arrays;
import java.util.List;
import org.openmuc.jdlms.*;
import org.openmuc.jdlms.SecuritySuite.EncryptionMechanism;
import org.openmuc.jdlms.datatypes.DataObject;

/** jDLMS against the simulated meter: java JdlmsClient.java PORT hdlc|wrapper none|lls|gmac SECRET EK AK; one value a line. */
public class JdlmsClient {
    public static void main(String[] a) throws Exception {
        var suite = SecuritySuite.builder();
        if (a[2].equals("lls")) {
            suite.setAuthenticationMechanism(AuthenticationMechanism.LOW).setPassword(a[3].getBytes());
        } else if (a[2].equals("gmac")) {
            suite.setAuthenticationMechanism(AuthenticationMechanism.HLS5_GMAC)
                 .setEncryptionMechanism(EncryptionMechanism.AES_GCM_128)
                 .setGlobalUnicastEncryptionKey(hex(a[4])).setAuthenticationKey(hex(a[5]));
        }
        var builder = new TcpConnectionBuilder("127.0.0.1").setPort(Integer.parseInt(a[0]));
        builder = a[1].equals("hdlc")
            ? builder.useHdlc().setLogicalDeviceId(1).setPhysicalDeviceAddress(17)
            : builder.useWrapper().setLogicalDeviceId(17);
        builder = builder.setClientId(Integer.parseInt(a[6])).setSystemTitle("CHK", 1).setSecuritySuite(suite.build());
        try (var meter = builder.build()) {
            var energy = new AttributeAddress(3, "1.0.1.8.0.255", 2);
            var volts = new AttributeAddress(3, "1.0.32.7.0.255", 2);
            System.out.println(((Number) meter.get(energy).getResultData().getValue()).longValue());
            var listed = meter.get(List.of(energy, volts));
            System.out.println(((Number) listed.get(1).getResultData().getValue()).longValue());
            List<DataObject> objects = meter.get(new AttributeAddress(15, "0.0.40.0.0.255", 2)).getResultData().getValue();
            System.out.println(objects.size());
            var period = new SetParameter(new AttributeAddress(7, "1.0.99.1.0.255", 4), DataObject.newUInteger32Data(1800));
            System.out.println(meter.set(List.of(period, period)));
            var shift = new MethodParameter(8, "0.0.1.0.0.255", 6, DataObject.newInteger16Data((short) 60));
            System.out.println(meter.action(shift).getResultCode());
        }
    }

    static byte[] hex(String text) {
        byte[] octets = new byte[text.length() / 2];
        for (int i = 0; i < octets.length; i++) octets[i] = (byte) Integer.parseInt(text.substring(2 * i, 2 * i + 2), 16);
        return octets;
    }
}
